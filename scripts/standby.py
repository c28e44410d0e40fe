"""The standby process, which forks trials with everything imported (driver's side: redsm5/engine/study/standby.py).

Importing the training script takes longer than training a small trial, and is done here once. For each request one
process forks a child, in a session of its own, and reports when it has exited, by itself or by a signal. It
communicates over the socket that is its standard input; what the imports print goes elsewhere. Several processes that
train one trial together cannot be forked, since they are already connected: they become the trial of the one request
that they get, and the next ones are started meanwhile.

A child differs from a fresh process only in its imports: it is forked while there is one thread, no device has been
used and nothing has been computed. The forkserver of the standard library does not fit: it passes a pickle to its
children, and knows nothing of launchers, of a session for each trial, or of a driver that may die before it.
"""

import gc
import os
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import torch
from setproctitle import setproctitle

from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.script import ScriptSpec
from redsm5.engine.session import run
from redsm5.engine.study.signals import die_with_parent
from redsm5.engine.surroundings import prepare
from redsm5.engine.terminal import show

# Modules that libraries import on first use, in redsm5.train.
LATE = (
    "hydra._internal.core_plugins.basic_launcher",
    "sentencepiece",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)


def main() -> None:
    prepare()
    die_with_parent()
    entry_point, several = sys.argv[1], "RANK" in os.environ  # torchrun sets it for each of several processes
    try:
        entry = preload(entry_point)
    except (Exception, SystemExit) as error:
        show(traceback.format_exc(), error=True)
        if not several:
            socket.socket(fileno=own_descriptor(0)).sendall(dumps({"broken": told(error, entry_point)}) + b"\n")
        sys.exit(1)
    gc.freeze()  # garbage collection in a child then copies no pages of the imports
    if not several:
        serve(socket.socket(fileno=own_descriptor(0)), entry)
    sys.stdin.read()  # end of file: the request is written, or there will be none
    if request := Path(os.environ["REDSM5_REQUEST"]).read_text():
        become(entry, **loads(request))


def preload(entry_point: str) -> ModuleType:
    """Import the training script, which does no work on import: a module by its name, or a file.

    It has `main(session)` and, where its configuration is not that of a script of one's own, its class as `SPEC`.
    """
    if not entry_point.endswith(".py"):
        for name in LATE:
            import_module(name)
        return import_module(entry_point)
    path = Path(entry_point)
    sys.path.insert(0, str(path.parent))  # as if it were run by its path
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    sys.modules[path.stem] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "main", None)):
        raise ImportError(f"{path} has no function main(session)")
    return module


def told(error: BaseException, entry_point: str) -> str:
    """An error of an import in a line, with the last place of it in the training script itself."""
    lines = [f"line {f.lineno}: " for f in traceback.extract_tb(error.__traceback__) if f.filename == entry_point]
    return f"{lines[-1] if lines else ''}{''.join(traceback.format_exception_only(error)).strip()}"


def own_descriptor(number: int) -> int:
    """Move a descriptor to a new, private number, and redirect the old one to /dev/null."""
    own = os.dup(number)
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
    return own


def serve(channel: socket.socket, entry: ModuleType) -> NoReturn:
    """Fork a trial for each request, one after the other, and report its begin and end."""

    def say(**words: object) -> None:
        channel.sendall(dumps(words) + b"\n")

    say(unfit=(why_not := unfit()))
    if why_not:
        sys.exit(why_not)
    pid = 0
    for request in channel.makefile():
        if pid:  # reaped only now, so that a signal of the driver cannot reach another process with its id
            os.waitpid(pid, 0)
        if (pid := os.fork()) == 0:
            os.setsid()
            os.close(channel.detach())  # the driver waits for its end of file, and a trial may outlive this process
            become(entry, **loads(request))
        say(begun=pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        say(ended=pid)
    os._exit(0)


def unfit() -> str:
    """Why no trial can be forked from this process; empty if it can."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads} threads are running after the imports"
    touched = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return "CUDA is initialized after the imports" if touched else ""


def become(entry: ModuleType, script: str, arguments: list[str], output: str | None) -> NoReturn:
    """Become the training script with these arguments; its output goes to this file, or to stderr."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, only a trial is killed
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if output:
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW, 0o600), 2)
    os.dup2(2, 1)
    sys.argv = [script, *arguments]
    setproctitle(" ".join([sys.executable, *sys.argv]))  # ps and pkill see the command of a trial launched by itself
    code = 1
    try:
        run(entry.main, arguments, getattr(entry, "SPEC", ScriptSpec))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            show(end.code, error=True)
    except BaseException:
        show(traceback.format_exc(), error=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal exit, which tears down all imports, takes longer than a small trial


if __name__ == "__main__":
    main()
