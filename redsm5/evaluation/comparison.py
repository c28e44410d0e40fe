"""Whether two trials' models differ on the same test posts, by a paired bootstrap over the posts.

Each sample draws posts with replacement and scores both models on them (Efron & Tibshirani 1993, chapter 16; for
F1 of classifiers, Berg-Kirkpatrick et al. 2012). Both have their own decision thresholds.

Shapes: R samples, P posts, C = 9 symptoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redsm5.evaluation.bootstrap import EDGES, criteria_samples, weightings

Floats = NDArray[np.float64]
SAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """A metric of two models.

    Attributes:
        difference: the second one's minus the first one's. low, high: its 95 % interval.
        p: two-sided, of the hypothesis that there is none: twice the share of samples in which it has the other sign or
            is 0, both counts raised by one (Davison & Hinkley 1997, eq. 4.11).
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def compare(
    first_PC: Floats,
    second_PC: Floats,
    labels_PC: NDArray[np.int64],
    thresholds: Sequence[Floats],
    samples: int = SAMPLES,
) -> list[Difference]:
    """The criteria metrics of two models; one that these posts leave undefined is left out.

    Args:
        first_PC, second_PC: their probabilities.
        thresholds: those of both, thresholds_C each.
    """
    weights_RP = weightings(len(labels_PC), samples)
    ours, theirs = (
        criteria_samples(probabilities_PC, labels_PC, limits_C, weights_RP)
        for probabilities_PC, limits_C in zip((first_PC, second_PC), thresholds, strict=True)
    )
    found = []
    for name, first_R in ours.items():
        second_R = theirs[name]
        differences_R = second_R - first_R
        samples_R = differences_R[1:][np.isfinite(differences_R[1:])]
        if not np.isfinite(differences_R[0]) or len(samples_R) == 0:
            continue
        low, high = np.percentile(samples_R, EDGES)
        sides = min(np.sum(samples_R <= 0), np.sum(samples_R >= 0))
        p = min(1.0, 2 * float(sides + 1) / (len(samples_R) + 1))
        first, second, difference = (float(values_R[0]) for values_R in (first_R, second_R, differences_R))
        found.append(Difference(name, first, second, difference, float(low), float(high), p))
    return found
