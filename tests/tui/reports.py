"""An evaluation report of a trial that was never trained."""

from redsm5.data.posts import SYMPTOMS
from redsm5.reports import (
    CriteriaMetrics,
    CriterionMetrics,
    EvaluatedCheckpoint,
    EvaluationReport,
    EvidenceMetrics,
    HardNegativeMetrics,
    TestMetrics,
)


def evaluation_report(trial, generated_at):
    """What evaluating a trial leaves, with scores that fall from symptom to symptom."""
    shift = trial.number / 100
    rows = [
        CriterionMetrics(
            id=name,
            f1=round(0.66 - 0.06 * n + shift, 3),
            precision=round(0.7 - 0.06 * n, 3),
            recall=round(0.62 - 0.06 * n, 3),
            pr_auc=round(0.68 - 0.06 * n, 3),
            support=66 - 7 * n,
            confusion_matrix=[[205 + 7 * n, 26 - 2 * n], [26 - n, 40 - 4 * n]],
        )
        for n, name in enumerate(SYMPTOMS)
    ]
    test = TestMetrics(
        criteria_matching=CriteriaMetrics(
            accuracy=0.871,
            f1_macro=round(0.45 + shift, 3),
            f1_micro=0.561,
            f1_weighted=0.55,
            precision_macro=0.5,
            recall_macro=0.46,
            macro_pr_auc=0.472,
            per_criterion=rows,
        ),
        evidence_binding=EvidenceMetrics(
            exact_match=0.31, f1=0.52, char_f1=0.55, char_precision=0.57, char_recall=0.54, null_span_accuracy=0.93
        ),
    )
    first = EvaluatedCheckpoint(
        checkpoint_id="c1",
        path=f"trial_{trial.trial_id}/checkpoints/epoch-{trial.best.epoch:04d}",
        epoch=trial.best.epoch,
        val_metric=trial.best.value,
        co_best=False,
        test_metrics=test,
    )
    return EvaluationReport(
        report_id="r",
        trial_id=trial.trial_id,
        study_id=trial.study_id,
        generated_at=generated_at,
        split="test",
        config={},
        optimization_metric_name="val_f1_macro",
        best_validation_score=trial.best.value,
        evaluated_checkpoints=[first, first.model_copy(update={"epoch": 7, "co_best": True})],
        decision_thresholds={name: round(0.41 - 0.02 * n, 2) for n, name in enumerate(SYMPTOMS)},
        test_metrics=test,
        confidence_intervals={
            "criteria_matching.f1_macro": [0.451, 0.52],
            "criteria_matching.f1_micro": [0.53, 0.59],
            "evidence_binding.f1": [0.49, 0.56],
        },
        hard_negatives=HardNegativeMetrics(pairs=120, criteria_specificity=0.88, evidence_specificity=0.91),
        data_fingerprint="0" * 64,
        data_counts={"train": 1184, "validation": 297, "test": 297},
        code_version="0",
        seed=0,
    )
