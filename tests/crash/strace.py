"""What `strace` sees of a process, and what it makes of a system call: a kill, or an error."""

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHANGING = ("openat", "write", "fsync", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "ftruncate")
READING = ("openat", "read", "pread64", "newfstatat", "getdents64")
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=-)[0-9a-f]{8}\b(?=[/>\"])")
LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
MISSING = None if shutil.which("strace") else "strace is not installed"


@dataclass(frozen=True)
class Call:
    """The `n`th call of this system call by this thread.

    Attributes:
        what: its arguments, with whatever is random or depends on the clock left out.
        line: as strace wrote it, with its data.
    """

    thread: str
    name: str
    n: int
    what: str
    line: str

    @property
    def changes(self) -> bool:
        """Whether it may change what is on disk."""
        return self.name in CHANGING and (self.name != "openat" or "O_CREAT" in self.line)

    @property
    def reads(self) -> bool:
        return self.name in READING and not self.changes

    def __str__(self) -> str:
        return f"{self.thread}: {self.name} {self.n}: {self.what}"


def attach(threads: Mapping[str, int], output: Path, *options: str) -> "subprocess.Popen[bytes]":
    """strace, once it holds these threads: their next call on a file is one that it sees."""
    ids = [word for tid in threads.values() for word in ("-p", str(tid))]
    said = output.with_suffix(".said")
    with said.open("wb") as stderr:
        process = subprocess.Popen(["strace", "-y", "-xx", "-o", str(output), *options, *ids], stderr=stderr)
    while said.read_text().count(" attached") < len(threads):
        assert process.poll() is None, f"strace cannot attach: {said.read_text()}"
        time.sleep(0.001)
    return process


def calls(output: Path, threads: Mapping[str, int], folder: Path) -> list[Call]:
    """The calls on this folder, in their order; a call's number counts those elsewhere too."""
    names = {str(tid): name for name, tid in threads.items()}
    counted: Counter[tuple[str, str]] = Counter()
    found = []
    for line in output.read_text().splitlines():
        if (match := LINE.match(line)) is None:
            continue
        tid, name, arguments = match.groups()
        thread = names[tid] if tid else next(iter(names.values()))
        counted[thread, name] += 1
        # What is written to another file may name the folder.
        decoded = unescaped(arguments.partition(", ")[0] if name == "write" else arguments)
        if str(folder) in decoded:
            found.append(Call(thread, name, counted[thread, name], subject(decoded, folder), arguments))
    return found


def unescaped(text: str) -> str:
    """Text in which every byte is written as its code, as `strace -xx` writes it, made readable."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text)


def subject(arguments: str, folder: Path) -> str:
    """The paths below the folder that a call names, without what is random in them."""
    found = re.findall(re.escape(str(folder)) + r"(?:/[\w.\-/]*)?(?=[>\"])", arguments)
    # One that was opened stands there again behind the file descriptor.
    return " ".join(dict.fromkeys(RANDOM.sub("*", path.removeprefix(str(folder)) + '"')[:-1] for path in found))
