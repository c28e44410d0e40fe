"""Files of the Hugging Face Hub: from its cache without any request, else downloaded.

A file is in the cache completely or not at all, and within a process a revision always means the same commit. Retries
and error messages are in `redsm5.hub.tries`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import tqdm, validate_repo_id  # type: ignore[attr-defined]

from redsm5 import sample_model
from redsm5.engine.errors import HubError, InputError
from redsm5.engine.jsonio import loads
from redsm5.hub.tries import TRIES, Failure, Source, tried
from redsm5.sections import DataConfig, ModelConfig

DATA_FILES = ("redsm5_posts.csv", "redsm5_annotations.csv")
# Other forms of the two tables: a file, or a folder with the Parquet files of `Dataset.push_to_hub`.
TABLES = frozenset({"posts", "annotations"})
PREFIXES = ("redsm5_", "")
_TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.parquet")
_CONFIGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference: a .bin is a pickle


class Fetched(NamedTuple):
    """A local folder, and the commit of the Hub's repository that it holds; None for a folder of the user."""

    folder: Path
    commit: str | None


# ---------------------------------------------------------------------------------------------------------------------
# public functions


def data_files(config: DataConfig) -> Fetched:
    """A folder with both tables of the dataset repository `config.repo_id` at `config.revision`: the CSV files of
    ReDSM5 if there are any, else the files named by TABLES.

    Raises:
        HubError: they cannot be fetched; the message says why and what to do.
    """
    return _fetch(_dataset(config))


def model_files(model_id: str, revision: str | None = None) -> Fetched:
    """A folder that `from_pretrained` loads an encoder and its tokenizer from: the sample model's for `minilm`,
    `model_id` itself if it is a folder, else the Hub's repository of that name (safetensors, or pytorch_model.bin if
    there are none).

    Raises:
        InputError: it is neither a folder nor a valid Hub id, or the sample model was not unpacked.
        HubError: it cannot be fetched; the message says why and what to do.
    """
    if model_id == sample_model.NAME:
        return Fetched(sample_model.found(), None)
    if is_local(model_id):
        return Fetched(Path(model_id).expanduser().resolve(), None)
    return _fetch(_model(model_id, revision))


def commits(data: DataConfig, model: ModelConfig) -> dict[str, str]:
    """The commits of `data` and `model`, if they come from the Hub; missing ones are fetched."""
    fetched = {}
    if data.source == "hub":
        fetched["data"] = data_files(data)
    if model.model_id != "tiny":
        fetched["model"] = model_files(model.model_id, model.revision)
    return {name: files.commit for name, files in fetched.items() if files.commit}


def check_access(data: DataConfig, model_ids: Iterable[str], revision: str | None, *, tries: int = TRIES) -> None:
    """Check that the Hub gives access to the data and these models, unless they are cached. Downloads nothing.

    Raises:
        InputError: a model is neither a folder nor a valid Hub id, or the sample model was not unpacked.
        HubError: the Hub does not give access.
    """
    others = [model_id for model_id in model_ids if model_id != "tiny"]
    if sample_model.NAME in others:
        sample_model.found()
    sources = [_model(name, revision) for name in others if name != sample_model.NAME and not is_local(name)]
    if data.source == "hub":
        sources.append(_dataset(data))
    for source in sources:
        if _cached(source) is None:
            tried(source, partial(_see, source), tries)


def _see(source: Source) -> None:
    """Request a file's metadata. The file lists of a gated repository are public; only a request for a file shows
    whether there is access.
    """
    name = "config.json" if source.kind == "model" else DATA_FILES[0]
    try:
        get_hf_file_metadata(_address(source, name))
    except Failure as failure:
        if source.kind == "model" or failure.code != "EntryNotFound":
            raise
        names = HfApi().list_repo_files(source.repo_id, repo_type=source.kind, revision=source.revision)
        other = next((name for name in sorted(names) if any(fnmatch(name, form) for form in _table_forms())), None)
        if other is None:
            raise
        get_hf_file_metadata(_address(source, other))


def _address(source: Source, name: str) -> str:
    return hf_hub_url(source.repo_id, name, repo_type=source.kind, revision=source.revision)


def is_local(model_id: str) -> bool:
    """Whether a model is a local folder."""
    return Path(model_id).expanduser().is_dir()


def _dataset(config: DataConfig) -> Source:
    assert config.repo_id is not None, "the configuration requires it"
    return Source("dataset", config.repo_id, config.revision or constants.DEFAULT_REVISION, "data.repo_id")


def _model(model_id: str, revision: str | None) -> Source:
    try:
        validate_repo_id(model_id)
    except HFValidationError:
        raise InputError(
            "there is no such folder, and it is not a valid model name of the Hub",
            where=f"model.model_id={model_id}",
            remedy="Give a local folder that exists, or owner/name of a model of the Hub.",
        ) from None
    return Source("model", model_id, revision or constants.DEFAULT_REVISION, "model.model_id")


# ---------------------------------------------------------------------------------------------------------------------
# the cache, then the network


@lru_cache
def _fetch(source: Source) -> Fetched:
    return _cached(source) or tried(source, partial(_download, source))


def _cached(source: Source) -> Fetched | None:
    for names in _wanted(source):
        try:
            folder = _snapshot(source, source.revision, names, local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        if _lacking(folder, source) is None:
            return Fetched(folder, folder.name)
    return None


def _download(source: Source) -> Fetched:
    revision, lacking = source.revision, None
    for names in _wanted(source):
        folder = _snapshot(source, revision, names)
        revision, lacking = folder.name, _lacking(folder, source)
        if lacking is None:
            return Fetched(folder, revision)
    raise HubError(
        f"{source} (commit {revision}) has no {lacking}",
        where=source.key,
        remedy=f"Its files are listed on {source.page}: choose another revision, or another repository.",
    )


def _wanted(source: Source) -> list[tuple[str, ...]]:
    """Sets of patterns of the files to fetch, in the order of preference: the first set whose files are complete is
    taken.
    """
    if source.kind == "dataset":
        return [DATA_FILES, _table_forms()]
    weights = [(name, f"{name}.index.json", name.replace(".", "-*-of-*.")) for name in _WEIGHTS]
    return [(*_CONFIGS, "vocab.*", "merges.txt", "*.model", *names) for names in weights]


def _table_forms() -> tuple[str, ...]:
    """Patterns of the files that may hold the two tables, except DATA_FILES."""
    names = [f"{prefix}{name}" for prefix in PREFIXES for name in sorted(TABLES)]
    return tuple(f"{name}{end}" for name in names for end in (*_TABLE_SUFFIXES, "/*.parquet"))


def _has_table(folder: Path, name: str) -> bool:
    """Whether this table is complete: a file, or all shards of one."""
    for stem in (f"{prefix}{name}" for prefix in PREFIXES):
        if any((folder / f"{stem}{suffix}").is_file() for suffix in _TABLE_SUFFIXES):
            return True
        names = [path.name for path in (folder / stem).glob("*.parquet")]
        shards = Counter(found.groups() for name in names if (found := _SHARD.fullmatch(name)))
        if names and shards.total() == len(names) and all(n == int(of) for (_, of), n in shards.items()):
            return True
    return False


def _snapshot(source: Source, revision: str, names: tuple[str, ...], **how: Any) -> Path:
    """The cache folder with these files; its name is the commit."""
    folder = snapshot_download(
        source.repo_id,
        repo_type=source.kind,
        revision=revision,
        allow_patterns=list(names),
        # In a pattern, * also matches across folders.
        ignore_patterns=["*/*"] if source.kind == "model" or names == DATA_FILES else ["*/*/*"],
        tqdm_class=_Bar,
        **how,
    )
    return Path(folder)


class _Bar(tqdm):
    """The progress bar of a download on a terminal; nothing in a log."""

    def __init__(self, *values: Any, **how: Any) -> None:
        super().__init__(*values, **{"disable": None} | how)  # type: ignore[no-untyped-call]


def _lacking(folder: Path, source: Source) -> str | None:
    """What a folder lacks to be usable, in words: other programs also cache parts of a repository."""
    if source.kind == "dataset":
        if all(_has_table(folder, name) for name in TABLES):
            return None
        return next((name for name in DATA_FILES if not (folder / name).is_file()), "table")
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        return "tokenizer"
    return None if any(_has_weights(folder, name) for name in _WEIGHTS) else " and no ".join(_WEIGHTS)


def _has_weights(folder: Path, name: str) -> bool:
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return (folder / name).is_file()
    return all((folder / shard).is_file() for shard in loads(index.read_bytes())["weight_map"].values())
