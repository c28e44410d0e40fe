"""Storage-bounded, resumable hyperparameter search for depression-symptom detection on ReDSM5."""

from pathlib import Path
from typing import TYPE_CHECKING

from redsm5.engine.version import __version__, code_version

if TYPE_CHECKING:
    from redsm5.evaluation.trained import Model

__all__ = ["__version__", "code_version", "load"]


def load(*folders: str | Path, device: str | None = None) -> "Model":
    """The trained model in a folder: a trial's, or one that `just export` wrote. See redsm5.evaluation.trained.load.

        model = redsm5.load("exported")
        (prediction,) = model.predict(["I cannot sleep at all."])
        print(prediction.present, prediction["SLEEP_ISSUES"].probability)

    Args:
        folders: several give one model whose predictions are averaged.
        device: cpu, cuda or cuda:1; by default the GPU, if there is one.

    Raises:
        redsm5.engine.errors.RedSM5Error: it cannot be loaded; the message says why, and what to do.
    """
    from redsm5.evaluation.trained import load  # takes seconds to import

    return load(*folders, device=device)
