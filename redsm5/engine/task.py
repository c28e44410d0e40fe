"""What a task adds to the engine: all that a driver must know of its data and its needs, as a small protocol.

`redsm5/task.py` is ReDSM5's; `redsm5/engine/script.py` has the one of a training script of one's own. The task's
configuration is a class of its own (redsm5/engine/spec.py), and its training a script.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from redsm5.engine.records import StudyRecord
from redsm5.engine.spec import StudySpec

C = TypeVar("C", bound=StudySpec)


class CheckedData(NamedTuple):
    """What a study starts or resumes with.

    Attributes:
        counts: of what the data have, for the log.
        fingerprint: identifies the data, which are the same for all trials of a study; None where the task has none.
        remarks: what is to be said of them before the first trial, each with facts.
    """

    counts: Mapping[str, int]
    fingerprint: str | None
    remarks: Sequence[tuple[str, dict[str, Any]]]


class Task(Protocol[C]):
    """What the engine asks of a task.

    Attributes:
        spec: the class of its configuration.
    """

    @property
    def spec(self) -> type[C]: ...

    def check_data(self, config: C) -> CheckedData:
        """The data, checked, and access to everything that a trial reads.

        Raises:
            InputError: they are not sound, so that no study is started.
            HubError: a server does not give them; a study that has begun waits for what it may yet give.
        """

    def check_access(self, config: C) -> None:
        """Ask once for access to what a trial reads, for a study that waits for it.

        Raises:
            HubError: it is refused, or not there.
        """

    def check_machine(self, config: C) -> None:
        """Whether this machine has all that the configuration's own values need.

        Raises:
            ConfigError: it has not; says what is missing and how to get it.
        """

    def missing(self, config: C) -> Mapping[str, str]:
        """What the search space may propose but this machine cannot do, each by name, with the remedy."""

    def without(self, config: C, names: Sequence[str]) -> C:
        """The configuration whose space proposes none of these.

        Raises:
            ConfigError: then nothing is left to propose.
        """

    def check_study(self, config: C, enqueued: Sequence[Mapping[str, Any]]) -> None:
        """Whether this machine has all that the study may propose, parameter sets to try first included.

        Raises:
            ConfigError: it has not.
        """

    def repeated(self, config: C, seed: int) -> dict[str, Any]:
        """What changes, by dotted key, where a trial is repeated to confirm its score: what is drawn by chance besides
        the training, such as the posts that validate it. Repeats with the same seed can be compared in pairs.
        """

    def write_page(self, folder: Path) -> None:
        """Draw the page of a trial's report, which is there."""

    def verdict(self, config: C, study: StudyRecord) -> list[str]:
        """What to say of a complete study, a sentence each: how its best trial stands to what it should beat."""
