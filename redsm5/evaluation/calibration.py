"""Calibration: how far a model's probabilities are the shares of posts that have the symptom.

Shapes: P posts, C symptoms, K bins, R weightings of the posts.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from redsm5.evaluation.metrics import NO_POSTS
from redsm5.reports import Calibration, CalibrationBin, SymptomCalibration

BINS = 10
Floats = NDArray[np.float64]


def calibration(probabilities_PC: Floats, labels_PC: NDArray[np.int64], symptoms: Sequence[str]) -> Calibration:
    """The Brier score and the expected calibration error of each symptom, and their means over all symptoms.

    The Brier score (Brier 1950; scikit-learn's `brier_score_loss`) is the mean of (p - y)^2 over the posts. The
    expected calibration error (Naeini et al. 2015, for the positive class as in Niculescu-Mizil and Caruana 2005) cuts
    [0, 1] into 10 bins of equal width, (0.1, 0.2] and so on, the first with 0, as scikit-learn's `calibration_curve`
    does; it is the sum over the bins of their share of the posts times |mean probability - share of positives|. Both
    are 0 at best, and defined for a symptom that no post has.

    >>> found = calibration(np.array([[0.85], [0.25]]), np.array([[1], [1]]), ["FATIGUE"])
    >>> round(found.brier_macro, 4), round(found.ece_macro, 4)
    (0.2925, 0.45)
    """
    P = len(labels_PC)
    samples = calibration_samples(probabilities_PC, labels_PC, np.ones((1, P)))
    rows = []
    for c, name in enumerate(symptoms):
        column_P, truth_P = probabilities_PC[:, c], labels_PC[:, c]
        figures = {"brier": float(_brier_PC(column_P, truth_P).mean()), "ece": _ece(column_P, truth_P)} if P else {}
        rows.append(_row(name, figures, bins_of(column_P, truth_P)))
    if not P:
        undefined = dict.fromkeys(samples, NO_POSTS)
        return Calibration(brier_macro=None, ece_macro=None, bins=[], per_criterion=rows, undefined=undefined)
    macro = {name: float(values_R[0]) for name, values_R in samples.items()}
    return Calibration(**macro, bins=bins_of(probabilities_PC.ravel(), labels_PC.ravel()), per_criterion=rows)


def calibration_samples(
    probabilities_PC: Floats, labels_PC: NDArray[np.int64], weights_RP: Floats
) -> dict[str, Floats]:
    """The means over the symptoms for R weightings of the posts: arrays of length R; NaN if a weighting is all 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share_RP = weights_RP / weights_RP.sum(axis=1, keepdims=True)
    gaps_PC, places_PC = probabilities_PC - labels_PC, _places(probabilities_PC)
    ece_R = np.zeros(len(weights_RP))
    for k in range(BINS):
        ece_R += np.abs(share_RP @ np.where(places_PC == k, gaps_PC, 0.0)).mean(axis=1)
    return {"brier_macro": (share_RP @ _brier_PC(probabilities_PC, labels_PC)).mean(axis=1), "ece_macro": ece_R}


def bins_of(probabilities_P: Floats, labels_P: NDArray[np.int64]) -> list[CalibrationBin]:
    """The bins from the lowest to the highest; empty without posts."""
    places_P = _places(probabilities_P)
    found = []
    for k in range(BINS) if len(places_P) else ():
        here_P = places_P == k
        count = int(here_P.sum())
        mean, share = (float(x[here_P].mean()) if count else None for x in (probabilities_P, labels_P))
        found.append(CalibrationBin(count=count, mean_probability=mean, share_positive=share))
    return found


def _row(name: str, figures: dict[str, float], bins: list[CalibrationBin]) -> SymptomCalibration:
    undefined = {} if figures else dict.fromkeys(("brier", "ece"), NO_POSTS)
    return SymptomCalibration(
        id=name, brier=figures.get("brier"), ece=figures.get("ece"), bins=bins, undefined=undefined
    )


def _ece(probabilities_P: Floats, labels_P: NDArray[np.int64]) -> float:
    weights_1P = np.ones((1, len(labels_P)))
    return float(calibration_samples(probabilities_P[:, None], labels_P[:, None], weights_1P)["ece_macro"][0])


def _brier_PC(probabilities_PC: Floats, labels_PC: NDArray[np.int64]) -> Floats:
    return (probabilities_PC - labels_PC) ** 2


def _places(probabilities_PC: Floats) -> NDArray[np.int64]:
    """The bin of each probability, from 0; a probability between two bins belongs to the lower one."""
    return np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], probabilities_PC)
