"""What a screen needs of the app, which alone imports the screens: the view, the selection, and what is remembered."""

from pathlib import Path
from typing import Protocol

from .read.view import View
from .write.memory import Memory


class Host(Protocol):
    """The app, as its screens see it.

    Attributes:
        view: the last snapshot of the folder; None before the first one.
        selected: the trial that the user selected last, which may be newer than the view.
        cleanups: the number of cleanups done; each makes earlier findings out of date.
    """

    cleanups: int

    @property
    def view(self) -> View | None: ...
    @property
    def experiments(self) -> Path: ...
    @property
    def memory(self) -> Memory: ...
    @property
    def selected(self) -> str | None: ...

    def select(self, trial_id: str | None) -> None:
        """Select a trial on all screens."""

    def choose(self, study_id: str) -> None:
        """Show another study on all screens."""

    def hurry(self) -> None:
        """Read the folder again at once, since the screen needs other data."""
