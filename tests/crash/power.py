"""What a disk holds after a power failure, from the system calls of a process that wrote to it.

The model is the least that POSIX promises: a file's bytes are on disk once it was fsynced, and a folder's entries (new,
renamed and removed ones) once the folder was. Whatever was not, may be there or not: `image` without dice drops all of
it, and with dice keeps, of each file and folder, some state that it had since its last fsync, or half of one.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.strace import Call, unescaped

STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})*)>")
RESULT = re.compile(r"\) += (-?\d+)")


@dataclass(eq=False)
class File:
    """`states` are its contents since the last fsync, the oldest being what that made durable."""

    states: list[bytes] = field(default_factory=lambda: [b""])

    @property
    def content(self) -> bytes:
        return self.states[-1]

    def image(self, dice: random.Random | None) -> bytes:
        if dice is None:
            return self.states[0]
        n = dice.randrange(len(self.states))
        before, after = self.states[max(n - 1, 0)], self.states[n]
        torn = after.startswith(before) and len(after) > len(before) and dice.random() < 0.3
        return after[: (len(before) + len(after)) // 2] if torn else after


@dataclass(eq=False)
class Folder:
    """As a `File`, of what is in it by name."""

    states: "list[dict[str, File | Folder]]" = field(default_factory=lambda: [{}])

    @property
    def entries(self) -> "dict[str, File | Folder]":
        return self.states[-1]

    def change(self, name: str, entry: "File | Folder | None") -> None:
        entries = {k: v for k, v in self.entries.items() if k != name}
        self.states.append(entries if entry is None else entries | {name: entry})

    def image(self, dice: random.Random | None) -> "dict[str, File | Folder]":
        return dice.choice(self.states) if dice else self.states[0]


class Disk:
    """A folder on a disk, as the calls change it one after the other."""

    def __init__(self, root: Path) -> None:
        self._root, self._top = str(root), Folder()
        self._offsets: dict[int, int] = {}
        self._appends: set[int] = set()

    def apply(self, call: Call) -> bool:
        """Do what a call did; whether that is anything that power could take back."""
        strings, descriptors = self._words(call)
        result = RESULT.search(call.line)
        if result is None or int(result[1]) < 0 or strings[:1] == [self._root]:  # the root itself is taken as given
            return False
        match call.name:
            case "openat":
                return self._open(strings[0], int(result[1]), call.line)
            case "lseek":
                self._offsets[descriptors[0][0]] = int(result[1])
                return False
            case "write":
                number, path = descriptors[0]
                return self._write(number, self._find(path), STRING.findall(call.line)[-1], int(result[1]))
            case "fsync":
                entry = self._find(descriptors[0][1])
                del entry.states[:-1]
                return True
            case "mkdir":
                self._parent(strings[0]).change(name_of(strings[0]), Folder())
            case "rename":
                entry = self._find(strings[0])
                source, target = self._parent(strings[0]), self._parent(strings[1])
                assert source is target, "a rename between two folders has no one moment at which it is durable"
                names = {k: v for k, v in source.entries.items() if k != name_of(strings[0])}
                source.states.append(names | {name_of(strings[1]): entry})
            case "unlink" | "rmdir" | "unlinkat":
                self._parent(strings[0]).change(name_of(strings[0]), None)
            case "ftruncate":
                file = self._find(descriptors[0][1])
                assert isinstance(file, File)
                file.states.append(file.content[: int(call.line.split(", ")[1].split(")")[0])])
            case _:
                return False
        return True

    def _words(self, call: Call) -> tuple[list[str], list[tuple[int, str]]]:
        """The paths and descriptors that a call names; a name in an open folder becomes a path."""
        descriptors = [(int(number), unescaped(path)) for number, path in DESCRIPTOR.findall(call.line)]
        strings = [unescaped(text) for text in STRING.findall(call.line)] if call.name != "write" else []
        if strings and not strings[0].startswith("/") and descriptors:
            strings[0] = f"{descriptors[0][1]}/{strings[0]}"
        return strings, descriptors

    def _open(self, path: str, number: int, line: str) -> bool:
        self._offsets[number] = 0
        self._appends.discard(number)
        if "O_APPEND" in line:
            self._appends.add(number)
        if "O_CREAT" not in line:
            return False
        parent, name = self._parent(path), name_of(path)
        if name not in parent.entries:
            parent.change(name, File())
            return True
        file = parent.entries[name]
        if isinstance(file, File) and "O_TRUNC" in line and file.content:
            file.states.append(b"")
            return True
        return False

    def _write(self, number: int, file: "File | Folder", data: str, count: int) -> bool:
        assert isinstance(file, File)
        at = len(file.content) if number in self._appends else self._offsets[number]
        written = bytes.fromhex(data.replace("\\x", ""))[:count]
        assert len(written) == count, "the trace does not hold all bytes"
        file.states.append(file.content[:at] + written + file.content[at + count :])
        self._offsets[number] = at + count
        return True

    def _find(self, path: str) -> "File | Folder":
        entry: File | Folder = self._top
        for name in path.removeprefix(self._root).split("/")[1:]:
            assert isinstance(entry, Folder)
            entry = entry.entries[name]
        return entry

    def _parent(self, path: str) -> Folder:
        folder = self._find(path.rpartition("/")[0])
        assert isinstance(folder, Folder)
        return folder

    def sync(self) -> None:
        """Make all durable that is there now."""

        def settle(entry: "File | Folder") -> None:
            del entry.states[:-1]
            for below in entry.entries.values() if isinstance(entry, Folder) else ():
                settle(below)

        settle(self._top)

    def image(self, dice: random.Random | None = None) -> dict[str, bytes | None]:
        """What is there after a power failure now: path below the root to content, None for a folder."""
        found: dict[str, bytes | None] = {}

        def look(folder: Folder, prefix: str) -> None:
            for name, entry in folder.image(dice).items():
                path = f"{prefix}{name}"
                if isinstance(entry, Folder):
                    found[path] = None
                    look(entry, f"{path}/")
                else:
                    found[path] = entry.image(dice)

        look(self._top, "")
        return found


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def failures(calls: Iterable[Call], root: Path, dice: random.Random) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Every different state in which a power failure can leave the folder, once without all that was not synced and
    once with some of it, after each call; with the words that say after which.
    """
    disk, seen = Disk(root), set()
    for call in calls:
        if disk.apply(call):
            for kept, image in (("nothing", disk.image()), ("something", disk.image(dice))):
                if (key := hash(frozenset(image.items()))) not in seen:
                    seen.add(key)
                    yield f"{call}; {kept} kept that was not synced", image


def write_image(image: dict[str, bytes | None], folder: Path) -> None:
    """Make the folder what the disk holds."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in image.items():
        if content is None:
            (folder / name).mkdir(mode=0o700)
        else:
            (folder / name).write_bytes(content)
