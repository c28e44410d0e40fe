"""Folders whose files were written to harm, and all that the app would show of a folder, as one text."""

import json
import math
import time
import unicodedata
from dataclasses import dataclass, replace

from redsm5.engine import paths
from redsm5.engine.records import (
    Best,
    BudgetEntry,
    BudgetLedger,
    ErrorRecord,
    Event,
    MetricRow,
    RetentionRow,
    StudyRecord,
)
from redsm5.reports import (
    CriteriaMetrics,
    CriterionMetrics,
    EvaluatedCheckpoint,
    EvaluationReport,
    EvidenceMetrics,
    HardNegativeMetrics,
    ParameterImportance,
    TestMetrics,
)
from tui.panels import (
    compare,
    log,
    machine,
    objective,
    overview,
    parallel,
    parameters,
    report,
    storage,
    study,
    trial,
    trials,
)
from tui.panels.chart import Chart, Line, draw
from tui.panels.parameters import ordered, ranked
from tui.read.detail import LOG, TrialReader
from tui.read.files import Documents
from tui.read.machine import Gpu, MachineView, Sample
from tui.read.reader import Reader
from tui.read.reports import Importance
from tui.read.storage import StorageReader
from tui.read.view import View

NASTY = (
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "a\x00b\x08\x0c\x7f\x85\x9b31m",
    "\u202eevil\u202c \u2066x\u2069 \u200f\ufeff\u00ad",
    "[red]bold[/red] [@click=app.quit]x[/] [link=file:///etc/passwd]l[/link]",
    "[/] [/nothing] [ [[ \\[ ]",
    "line\nbreak\r\ttab\u2028sep\u2029end",
    "\u5bbd" * 300,
    "e\u0301\u0327" * 60,
    "%s {0} {x!r} $HOME `id`",
    "../../../etc/passwd",
    "x" * 10_000,
    "",
)
HUGE = 10**400
# By which path each file that is read lies in a folder, and whether it is one of lines.
OF_STUDY = {paths.STUDY: False, paths.INDEX: False, paths.BUDGET: False, paths.SUMMARY: False, paths.EVENTS: True}
OF_TRIAL = {
    paths.TRIAL: False,
    paths.CONFIG: False,
    paths.REPORT: False,
    paths.METRICS: True,
    paths.RETENTION: True,
    paths.DECISIONS: True,
    f"{paths.LOGS}/{LOG}": True,
}


def harmful(text):
    """The characters in it that a terminal obeys or that hide or turn others around."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def evaluation(trial_id, word="DEPRESSED_MOOD", number=0.5):
    """A report whose texts are this word and whose numbers are this number."""
    row = CriterionMetrics(
        id=word,
        f1=number,
        precision=number,
        recall=None,
        pr_auc=number,
        support=7,
        confusion_matrix=[[4, 1], [1, 1]],
        undefined={"recall": word},
    )
    criteria = CriteriaMetrics(
        accuracy=number,
        f1_macro=number,
        f1_micro=number,
        f1_weighted=number,
        precision_macro=number,
        recall_macro=number,
        macro_pr_auc=None,
        per_criterion=[row] * 2,
    )
    evidence = EvidenceMetrics(
        exact_match=number,
        f1=number,
        char_f1=number,
        char_precision=number,
        char_recall=number,
        null_span_accuracy=None,
    )
    metrics = TestMetrics(criteria_matching=criteria, evidence_binding=evidence)
    checkpoint = EvaluatedCheckpoint(
        checkpoint_id=word, path=word, epoch=3, val_metric=number, co_best=False, test_metrics=metrics
    )
    return EvaluationReport(
        report_id=word,
        trial_id=trial_id,
        study_id=None,
        generated_at=word,
        split="test",
        config={word: word},
        optimization_metric_name=word,
        best_validation_score=number,
        evaluated_checkpoints=[checkpoint],
        decision_thresholds={word: number},
        test_metrics=metrics,
        confidence_intervals={"criteria_matching.f1_macro": [number, number]},
        hard_negatives=HardNegativeMetrics(pairs=3, criteria_specificity=number, evidence_specificity=None),
        data_fingerprint=word,
        data_counts={"test": 12},
        code_version=word,
        seed=1,
    )


def summary(study_id, word="train.learning_rate"):
    """What `just summary` says where every text is this word."""
    told = ParameterImportance(share=None, trials=12, conditional=True, reason=word)
    known = ParameterImportance(share=0.4, trials=12, conditional=True)
    return Importance(
        study_id=study_id,
        generated_at=word,
        counts={"completed": 1, word: 2},
        parameter_importance={word: told, f"a.{word}": known, "train.learning_rate": known},
    )


def complete(folder, study_id, word="DEPRESSED_MOOD"):
    """Give the study and its trials the files that the fixture leaves out."""
    study = paths.study_dir(folder.root, study_id)
    entries = {}
    for path in folder.root.glob("trial_*"):
        trial_id = path.name.removeprefix("trial_")
        entries[trial_id] = BudgetEntry(reserved=10**9, bytes=10**8)
        (path / paths.CONFIG).write_text(json.dumps({"train": {"learning_rate": 2e-5, word: [word, {word: 1}]}}))
        (path / paths.REPORT).write_bytes(evaluation(trial_id, word).to_json())
        (path / paths.DECISIONS).write_text(json.dumps({"epoch": 1, "prune": True, "reason": word}) + "\n")
        (path / paths.LOGS).mkdir()
        line = {"timestamp": folder.ago(1), "severity": "INFO", "message": word, "context": {word: word}}
        (path / paths.LOGS / LOG).write_text(json.dumps(line) + "\n")
        for epoch in (1, 2, 3, 4):
            (path / paths.CHECKPOINTS / f"epoch-{epoch:04d}").mkdir(parents=True)
    (study / paths.SUMMARY).write_bytes(summary(study_id, word).to_json())
    (study / paths.BUDGET).write_bytes(BudgetLedger(max_total_size=10**10, entries=entries).to_json())


def poison(folder, study_id, word):
    """Put this word wherever a record has room for any text."""
    study = paths.study_dir(folder.root, study_id)
    record = StudyRecord.model_validate_json((study / paths.STUDY).read_bytes())
    changes = {"name": word, "metric": word, "config": {word: word}}
    (study / paths.STUDY).write_bytes(record.model_copy(update=changes).to_json())
    trials = Reader(folder.root).read().trials
    events = []
    for t in trials:
        changes = {
            "error": ErrorRecord(kind=word, message=word),
            "duplicate_of": word,
            "parameters": {word: word, f"a.{word}": [word], "b": {word: math.nan}},
            "best": t.best and Best(epoch=t.best.epoch, value=0.5),
        }
        own = t.model_copy(update=changes)
        path = paths.trial_dir(folder.root, t.trial_id)
        (path / paths.TRIAL).write_text(own.model_dump_json())
        row = {"trial_id": word, "step": 1, "epoch": 1, "value": 0.5, "timestamp": word}
        names = (word, f"system_{word}", f"{word}_bytes", "system_save_stall_seconds")
        folder.lines(path / paths.METRICS, [MetricRow(metric=name, **row) for name in names])
        kept = {"timestamp": word, "epoch": 1, "step": 1, "score": 0.5, "bytes": 9, "reason": word}
        folder.lines(path / paths.RETENTION, [RetentionRow(action="keep", checkpoint=word, **kept)])
        events.append(Event(timestamp=word, trial_id=t.trial_id, number=1, state=t.state, message=word))
    folder.lines(study / paths.EVENTS, events)
    (study / paths.INDEX).unlink(missing_ok=True)


@dataclass
class Readers:
    """What the app keeps between two looks."""

    folder: Reader
    storage: StorageReader
    trials: dict[str, TrialReader]


def readers(root):
    return Readers(Reader(root), StorageReader(root), {})


def look(root, kept=None, most=3):
    """All of the folder, as the app would look at it for all of its screens at once."""
    kept = kept or readers(root)
    snapshot = kept.folder.read()
    study = snapshot.study.study_id if snapshot.study else None
    details = {}
    for t in snapshot.trials[:most]:
        details[t.trial_id] = kept.trials.setdefault(t.trial_id, TrialReader(root, t.trial_id)).read(t)
    counted = kept.storage.look(study, snapshot.trials, 1.0)
    selected = next(iter(details), None)
    told = Documents().get(paths.study_dir(root, study) / paths.SUMMARY, Importance) if study else None
    return View(snapshot, selected=selected, marked=tuple(details), details=details, storage=counted, importance=told)


def shown(view, word="x"):
    """All that the screens would show of it."""
    parts = [overview.page(view), study.empty(view.snapshot), overview.pace(view), overview.leader(view)]
    parts += [study.title(view.snapshot), study.status(view.snapshot), *overview.lately(view)]
    now = int(time.time() * 1000)
    parts += [storage.usage(view.snapshot, view.storage, 40, now), *storage.moves(view, 60, now)]
    parts += [storage.kinds(view), storage.largest(view, 40), storage.going(leftovers(word), "", view)]
    parts.append(draw(objective.objective_chart(view.snapshot.trials), 40, 8))
    columns = trials.columns(view.snapshot.trials, study.metric(view.snapshot), view.notes)
    parts += [column.label for column in columns]
    parts.append(trials.counts(view, 1))
    for t in view.snapshot.trials[:20]:
        parts += [*trials.cells(t, view, columns), trials.detail(t, view)]
        for column in columns:
            trials.sorting(column.key, view.notes)(t)
    keys = ordered(view.snapshot.trials.parameters, view.importance)
    found = ranked(view.snapshot.trials)
    parts += [parameters.bars(view.importance, keys, 70, ""), parameters.in_common(found * 12, keys, 70)]
    parts.append(parallel.draw(parameters.parallel(view, found, keys[:4]), 60, 9))
    gpus = (Gpu(word, None, 1, 2),)
    busy = replace(view, machine=MachineView((Sample(1.0, 5.0, 9, gpus=gpus),), word, 2, 10, word))
    parts += [machine.at_work(busy, 80)[0], machine.strip(busy.machine, 80)]
    parts += [machine.gpus(busy.machine, 80, 9)[0], machine.title(busy.machine)]
    for detail in view.details.values():
        one = replace(view, selected=detail.record.trial_id)
        parts += [trial.about(one, detail), trial.remedy(one, detail), trial.system(detail)]
        parts += [trial.configuration(detail, other) for other in view.details.values()]
        parts += [
            trial.checkpoints(one, detail),
            *(log.whole(line, one.now) for line in detail.log),
            *(log.said(line) for line in detail.log),
            report.missing(one),
        ]
        if detail.report:
            parts.append(report.report(detail.report, view.standing, 74))
        for series in [*detail.series.values()][:10]:
            for scale in (False, True):
                parts.append(draw(Chart([Line(series.steps, series.values)], log=scale), 30, 7))
    if view.details:
        parts += [
            compare.parameters([*view.details.values()], view.standing),
            compare.symptoms([*view.details.values()], view.standing),
        ]
    return "\n".join(part if isinstance(part, str) else part.plain for part in parts)


def leftovers(word):
    """What cleanup finds where the folders are called so."""
    kinds = ("litter", "orphan", "evictable")
    items = [{"kind": kind, "path": f"{word}/trial_{word}/{word}", "bytes": 5, "reason": word} for kind in kinds]
    return {"items": items, "totals": {}, "skipped": []}
