"""Discrimination: how well a model tells the posts that have a symptom from those that have not.

Shapes: P posts, C symptoms, R weightings of the posts, N steps of equal probability.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from redsm5.evaluation.metrics import NO_POSITIVES, NO_POSTS
from redsm5.reports import Discrimination, SymptomDiscrimination

ALL_POSITIVE = "every post of this split has the symptom"
NO_SYMPTOM = "no symptom has posts with it and without it"
Floats = NDArray[np.float64]


def discrimination(
    probabilities_PC: Floats, labels_PC: NDArray[np.int64], thresholds_C: Floats, symptoms: Sequence[str]
) -> Discrimination:
    """ROC AUC and Matthews correlation coefficient of each symptom, and their means over the symptoms that define them.

    ROC AUC is the share of pairs of a post with the symptom and one without in which the first has the higher
    probability, ties counted half (`roc_auc_score`). Matthews correlation is that of decisions and labels, from -1 to
    1, and 0 where all decisions are the same (`matthews_corrcoef`). Both need posts with the symptom and without it.

    >>> found = discrimination(np.array([[0.9], [0.4], [0.6]]), np.array([[1], [1], [0]]), np.array([0.5]), ["FATIGUE"])
    >>> found.roc_auc_macro, round(found.mcc_macro, 3)
    (0.5, -0.5)
    """
    samples = discrimination_samples(probabilities_PC, labels_PC, thresholds_C, np.ones((1, len(labels_PC))))
    rows = []
    for c, name in enumerate(symptoms):
        figures = {key: _known(values_RC[0, c]) for key, values_RC in samples.items()}
        reason = NO_POSTS if not len(labels_PC) else ALL_POSITIVE if labels_PC[:, c].any() else NO_POSITIVES
        undefined = {key: reason for key, value in figures.items() if value is None}
        rows.append(SymptomDiscrimination(id=name, **figures, undefined=undefined))
    means = {f"{key}_macro": _known(mean_over_symptoms(values_RC)[0]) for key, values_RC in samples.items()}
    reason = NO_SYMPTOM if len(labels_PC) else NO_POSTS
    undefined = {key: reason for key, value in means.items() if value is None}
    return Discrimination(**means, per_criterion=rows, undefined=undefined)


def discrimination_samples(
    probabilities_PC: Floats, labels_PC: NDArray[np.int64], thresholds_C: Floats, weights_RP: Floats
) -> dict[str, Floats]:
    """roc_auc_RC and mcc_RC for R weightings of the posts; NaN where none or all of a sample have the symptom."""
    truth_PC, said_PC = labels_PC.astype(bool), probabilities_PC >= thresholds_C
    columns = zip(probabilities_PC.T, truth_PC.T, strict=True)
    tp_RC, fp_RC = weights_RP @ (truth_PC & said_PC), weights_RP @ (~truth_PC & said_PC)
    fn_RC, tn_RC = weights_RP @ (truth_PC & ~said_PC), weights_RP @ (~truth_PC & ~said_PC)
    both_RC = (tp_RC + fn_RC > 0) & (fp_RC + tn_RC > 0)
    product_RC = (tp_RC + fp_RC) * (tp_RC + fn_RC) * (tn_RC + fp_RC) * (tn_RC + fn_RC)
    with np.errstate(invalid="ignore", divide="ignore"):
        mcc_RC = np.where(product_RC > 0, (tp_RC * tn_RC - fp_RC * fn_RC) / np.sqrt(product_RC), 0.0)
    return {
        "roc_auc": np.stack([_roc_auc(p, t, weights_RP) for p, t in columns], axis=1),
        "mcc": np.where(both_RC, mcc_RC, np.nan),
    }


def mean_over_symptoms(values_RC: Floats) -> Floats:
    """The mean over the symptoms whose metric is defined in the sample; NaN if there are none."""
    known_RC = np.isfinite(values_RC)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = np.where(known_RC, values_RC, 0.0).sum(axis=1) / known_RC.sum(axis=1)
    return mean


def _roc_auc(probabilities_P: Floats, truth_P: NDArray[np.bool_], weights_RP: Floats) -> Floats:
    """The area by trapezoids, for each weighting; posts with equal probabilities form one step."""
    order = np.argsort(-probabilities_P, kind="stable")
    last_of_step = np.append(np.diff(probabilities_P[order]) != 0, True)[: len(order)]
    ordered_RP = weights_RP[:, order]
    tp_RN, fp_RN = (np.cumsum(ordered_RP * of[order], axis=1)[:, last_of_step] for of in (truth_P, ~truth_P))
    heights_RN = tp_RN + np.pad(tp_RN, ((0, 0), (1, 0)))[:, :-1]
    area_R = (np.diff(fp_RN, axis=1, prepend=0.0) * heights_RN).sum(axis=1) / 2
    all_R = (weights_RP @ truth_P) * (weights_RP @ ~truth_P)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc: Floats = np.where(all_R > 0, area_R / all_R, np.nan)
    return auc


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
