"""What the app remembers across restarts, in one file of the user's own, never in the experiments folder.

Per experiments folder: the selected study and trial, marks and pin; for all together: the layout and the notes on
trials. The file may be missing, foreign, half written or read-only: then the app works without it. If two apps write
it, the last writer wins, separately for each folder, for the layout and for the notes.
"""

import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redsm5.engine.files import open_regular
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.migrations import SCHEMA

from ..panels import text

LARGEST = 1 << 25  # bytes: the most notes, each of the greatest length
MOST_FOLDERS = 200
MOST_NOTES, LONGEST_NOTE = 10_000, 500
MOST_MARKED = 8
LONGEST_ID, LONGEST_PATH, LONGEST_WORD, MOST_WORDS = 200, 4096, 2000, 50
WIDEST = 500

Kept = bool | int | str


@dataclass(frozen=True)
class Here:
    """What the user looked at in one experiments folder: the ids of a study and of trials."""

    study: str | None = None
    trial: str | None = None
    pinned: str | None = None
    marked: tuple[str, ...] = ()


@dataclass
class Content:
    """The content of the state file, and whether it exists but cannot be read."""

    folders: dict[str, Here] = field(default_factory=dict)
    layout: dict[str, dict[str, Kept]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unreadable: bool = False


def state_file() -> Path | None:
    """The path of the state file; None if there is no home folder."""
    base = Path(os.environ.get("XDG_STATE_HOME") or "")
    try:
        base = base if base.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "redsm5" / "terminal.json"


class Memory:
    """The app's saved state for one experiments folder. `notes` is never modified, but replaced if a note changes."""

    def __init__(self, experiments: Path) -> None:
        self.path = state_file()
        try:
            self._folder = os.path.realpath(experiments)
        except OSError:  # started in a deleted folder
            self._folder = str(experiments)
        content = read(self.path)
        self.here: Here = content.folders.get(self._folder, Here())
        self.layout, self.notes = content.layout, content.notes
        self._followed: dict[str, tuple[object, Sequence[str]]] = {}
        self._saved: tuple[Here, dict[str, dict[str, Kept]]] = (self.here, self.layout)
        self._unsaved: dict[str, str] = {}  # notes; an empty one deletes the saved one
        self._notes_lock, self._file_lock = threading.Lock(), threading.Lock()

    @property
    def theme(self) -> str:
        return str(self.layout.get("TerminalApp", {}).get("theme", ""))

    def recall(self, thing: object, names: Sequence[str], *, called: str = "") -> None:
        """Restore these attributes of `thing`, and follow them, under the name of its type or `called`."""
        called = called or type(thing).__name__
        for name, value in self.layout.get(called, {}).items():
            if name in names and type(value) is type(getattr(thing, name)):
                setattr(thing, name, value)
        self.follow(thing, names, called)

    def follow(self, thing: object, names: Sequence[str], called: str) -> None:
        """From now on, save the values of these attributes."""
        self._followed[called] = thing, names

    def note(self, trial_id: str, note: str) -> bool:
        """Set a trial's note; an empty one removes it. Return False if there are too many notes."""
        note = _line(note)
        if note and trial_id not in self.notes and len(self.notes) >= MOST_NOTES:
            return False
        notes = {known: said for known, said in self.notes.items() if known != trial_id}
        self.notes = notes | {trial_id: note} if note else notes
        with self._notes_lock:
            self._unsaved[trial_id] = note
        return True

    def changed(self, here: Here) -> bool:
        """Whether there is anything to save."""
        return bool(self._unsaved) or self._saved != (here, self._layout())

    def save(self, here: Here) -> None:
        """Merge the changes into the current content of the file.

        Raises:
            OSError: it cannot be written.
        """
        with self._file_lock:
            layout = self._layout()
            with self._notes_lock:
                unsaved, self._unsaved = self._unsaved, {}
            try:
                if self.path is None:
                    raise FileNotFoundError(2, "there is no home folder")
                content = read(self.path)
                content.folders.pop(self._folder, None)
                content.folders[self._folder] = here  # the last used one comes last
                content.layout |= layout
                for trial_id, note in unsaved.items():
                    content.notes.pop(trial_id, None)
                    if note:
                        content.notes[trial_id] = note
                write(self.path, content)
            except OSError:
                with self._notes_lock:
                    self._unsaved = unsaved | self._unsaved
                raise
            self._saved = here, layout

    def _layout(self) -> dict[str, dict[str, Kept]]:
        """The saved layout, updated with the current values of what is followed."""
        now = {kind: {n: getattr(thing, n) for n in names} for kind, (thing, names) in self._followed.items()}
        return self.layout | now


# ---------------------------------------------------------------------------------------------------------------------
# the file


def read(path: Path | None) -> Content:
    """The valid parts of the file; never raises."""
    if path is None:
        return Content()
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
        document = loads(data) if len(data) <= LARGEST else None
    except (FileNotFoundError, NotADirectoryError):
        return Content()
    except (OSError, ValueError, RecursionError, MemoryError):
        document = None
    if not isinstance(document, dict):
        return Content(unreadable=True)
    notes = [(i, _line(n)) for i, n in _items(document, "notes") if _word(i, LONGEST_ID) and _word(n)]
    folders = [(path, _here(here)) for path, here in _items(document, "folders") if _word(path, LONGEST_PATH)]
    layout = [(kind, _kept(kept)) for kind, kept in _items(document, "layout") if _word(kind, LONGEST_ID)]
    return Content(
        folders=dict(folders[-MOST_FOLDERS:]),
        layout=dict(layout[:MOST_WORDS]),
        notes={trial_id: note for trial_id, note in notes[-MOST_NOTES:] if note},
    )


def write(path: Path, content: Content) -> None:
    """Replace the file atomically; an unreadable one is renamed first.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {
        SCHEMA: 1,
        "folders": {path: asdict(here) for path, here in [*content.folders.items()][-MOST_FOLDERS:]},
        "layout": content.layout,
        "notes": dict([*content.notes.items()][-MOST_NOTES:]),
    }
    fd, scratch = tempfile.mkstemp(prefix=".terminal-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(dumps(document, indent=True))
            file.flush()
            os.fsync(fd)
        if content.unreadable:
            os.replace(path, path.with_name("terminal.json.unreadable"))
        os.replace(scratch, path)
    except OSError:
        with suppress(OSError):
            os.unlink(scratch)
        raise


def _items(document: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    found = document.get(key)
    return [*found.items()] if isinstance(found, dict) else []


def _word(value: object, longest: int = 4 * LONGEST_NOTE) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _line(note: str) -> str:
    """A note as it is saved and shown; idempotent."""
    return text.clean(text.clean(note, LONGEST_NOTE), LONGEST_NOTE).strip()


def _here(found: object) -> Here:
    if not isinstance(found, dict):
        return Here()
    study, trial, pinned = (
        i if _word(i := found.get(what), LONGEST_ID) else None for what in ("study", "trial", "pinned")
    )
    marked = found.get("marked")
    ids = (i for i in marked if _word(i, LONGEST_ID)) if isinstance(marked, list) else ()
    return Here(study, trial, pinned, tuple(dict.fromkeys(ids))[:MOST_MARKED])


def _kept(found: object) -> dict[str, Kept]:
    """The values of an allowed kind: short text, booleans and widths."""
    kept = [*found.items()][:MOST_WORDS] if isinstance(found, dict) else []
    return {
        key: "".join(c for c in value if c.isprintable()) if isinstance(value, str) else value
        for key, value in kept
        if _word(key, LONGEST_ID) and (_word(value, LONGEST_WORD) or (isinstance(value, int) and abs(value) <= WIDEST))
    }
