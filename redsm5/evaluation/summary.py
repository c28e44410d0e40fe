"""A study's summary, summary.json and summary.html in its folder, from the records of its trials.

It does not affect the study and can be made at any time: while the study runs, or from a copy of the folder. A damaged
file is named and skipped. The best trial is chosen by validation; test scores are shown, never used to choose.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from redsm5.engine import files, paths
from redsm5.engine.documents import load, load_lines, milliseconds, now
from redsm5.engine.errors import InputError
from redsm5.engine.records import RetentionRow, StudyIndex, StudyRecord, TrialRecord
from redsm5.engine.sections import Parameter, SearchConfig
from redsm5.engine.timeline import Moment, storage_over_time, time_left
from redsm5.evaluation.confirmation import confirmation_of
from redsm5.evaluation.importance import parameter_importance
from redsm5.evaluation.neighbours import link_pages
from redsm5.evaluation.studypage import render_summary, scored
from redsm5.noise import Scores, beside_baseline, beside_best, scores_of, with_test
from redsm5.reports import (
    CHOSEN_BY_VALIDATION,
    EvaluationReport,
    ParameterImportance,
    SecondsLeft,
    StorageSummary,
    StudySummary,
    SummaryBest,
    SummaryTrial,
    TestMetrics,
)

Read = TypeVar("Read")
MOST_COMPARED = 200  # trials, the best ones; reading all predictions of 10,000 would take a minute


@dataclass
class StudyFiles:
    """What could be read of a study, with trials by id, and which files could not be read.

    Attributes:
        tests: the test metrics of the trials that have been evaluated on the test split.
        sizes: current bytes of checkpoints on disk.
    """

    study: StudyRecord
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    tests: dict[str, TestMetrics] = field(default_factory=dict)
    journals: dict[str, list[RetentionRow]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, name: str, read: Callable[[], Read], otherwise: Read) -> Read:
        """What `read` returns; if it fails, `otherwise`, and a problem that names the file is recorded."""
        try:
            return read()
        except InputError as error:
            self.problems.append(f"{name}: {error.what}")
        except OSError as error:
            self.problems.append(f"{name}: {error.strerror}")
        except ValueError:
            self.problems.append(f"{name}: a line is damaged, or was written by another version")
        return otherwise


def write_summary(experiments: Path, study: StudyRecord) -> StudySummary:
    """Make a study's summary and its page, write each atomically into the study's folder, and link all its pages."""
    folder = paths.study_dir(experiments, study.study_id)
    summary, moments = make_summary(experiments, study)
    page = render_summary(experiments, summary, space_of(study), moments)
    with files.Lock(folder / paths.LOCK):  # two writers would share a temporary file
        files.write_atomic(folder / paths.SUMMARY, summary.to_json())
        files.write_atomic(folder / paths.SUMMARY_PAGE, page.encode(errors="replace"))
    link_pages(experiments, summary)
    return summary


def make_summary(experiments: Path, study: StudyRecord) -> tuple[StudySummary, list[Moment]]:
    """A study's summary, and its storage over time; nothing is written."""
    found = read_study(experiments, study)
    moments = storage_over_time(found.journals)
    return summarize(experiments, found, moments), moments


def read_study(experiments: Path, study: StudyRecord) -> StudyFiles:
    """Read a study's trials: those that its index lists, and those whose records name the study."""
    found = StudyFiles(study)
    index_file = paths.study_dir(experiments, study.study_id) / paths.INDEX
    index = found.attempt(f"{index_file.parent.name}/{paths.INDEX}", lambda: load(index_file, StudyIndex), None)
    listed = {row.trial_id: row for row in index.trials} if index else {}
    folders = {folder.name.removeprefix("trial_"): folder for folder in paths.trial_dirs(experiments)}
    for trial_id in sorted(listed.keys() - folders.keys()):
        found.problems.append(f"trial_{trial_id}: the folder is missing")
    found.trials |= listed
    for trial_id, folder in folders.items():
        _read_trial(found, trial_id, folder)
    return found


def _read_trial(found: StudyFiles, trial_id: str, folder: Path) -> None:
    name = f"{folder.name}/{paths.TRIAL}"
    document = found.attempt(name, lambda: files.read_json(folder / paths.TRIAL), None) or {}
    if trial_id not in found.trials and document.get("study_id") != found.study.study_id:
        return  # another study's trial, or a damaged one, whose study is unknown
    record = found.attempt(name, lambda: load(folder / paths.TRIAL, TrialRecord), None)
    if record:
        found.trials[trial_id] = record
    elif trial_id not in found.trials:
        return
    report = found.attempt(f"{folder.name}/{paths.REPORT}", lambda: load(folder / paths.REPORT, EvaluationReport), None)
    if report and report.split == "test":
        found.tests[trial_id] = report.test_metrics
    found.journals[trial_id] = found.attempt(f"{folder.name}/{paths.RETENTION}", lambda: _journal(folder), [])
    found.sizes[trial_id] = found.attempt(folder.name, lambda: files.tree_bytes(folder / paths.CHECKPOINTS), 0)


def _journal(folder: Path) -> list[RetentionRow]:
    rows = load_lines(folder / paths.RETENTION, RetentionRow)
    for row in rows:
        milliseconds(row.timestamp)  # raises ValueError if it is no time
    return rows


def space_of(study: StudyRecord) -> dict[str, Parameter]:
    """The search space with which the study was created; empty if this version cannot read it."""
    try:
        return SearchConfig.model_validate(study.config.get("search")).space
    except ValidationError:
        return {}


# ---------------------------------------------------------------------------------------------------------------------
# results


def summarize(experiments: Path, found: StudyFiles, moments: Sequence[Moment]) -> StudySummary:
    """The summary of what was read."""
    study = found.study
    rows = [_row(experiments, found, trial_id) for trial_id, record in found.trials.items() if not record.confirms]
    trials = sorted(rows, key=partial(_by_validation, sign=1 if study.maximize else -1))
    best = _best(found, trials)
    scores = _scores(experiments, found, trials[:MOST_COMPARED])
    if best:
        trials = [beside_best(row, scores.get(row.trial_id), scores.get(best.trial_id)) for row in trials]
        best = with_test(best, scores.get(best.trial_id), maximize=study.maximize)
    return StudySummary(
        generated_at=now(),
        study_id=study.study_id,
        name=study.name,
        state=study.state,
        metric=study.metric,
        note=CHOSEN_BY_VALIDATION,
        trials_wanted=study.trials.wanted,
        counts=dict(Counter(row.state for row in trials).most_common()),
        best=best,
        trials=trials,
        parameter_importance=_importance(study, trials),
        storage=_storage(found, moments),
        problems=found.problems,
        confirmation=confirmation_of(
            study, found.trials, found.tests, lambda trial_id: _report_of(experiments, trial_id)
        ),
        baseline=beside_baseline(experiments, study, scores.get(best.trial_id) if best else None),
        time_left=_time_left(found),
    )


def _time_left(found: StudyFiles) -> SecondsLeft | None:
    """What the study still takes, running or once it is resumed; None of one that is done, or before an epoch."""
    left = time_left(found.study, found.trials.values())
    if left is None or found.study.state == "completed":
        return None
    return SecondsLeft(seconds=round(left.seconds, 1), low=round(left.low, 1), high=round(left.high, 1))


def _report_of(experiments: Path, trial_id: str) -> str | None:
    """The path of a trial's report relative to the experiments folder, if there is one."""
    report = paths.trial_dir(experiments, trial_id) / paths.REPORT
    return str(report.relative_to(experiments)) if report.exists() else None


def _by_validation(row: SummaryTrial, *, sign: int) -> tuple[bool, float, bool, int]:
    """A sort key: completed trials first, the best value first, and then by number; then the others in the same way."""
    value = scored(row)
    return row.state != "completed", math.inf if value is None else -sign * value, row.number is None, row.number or 0


def _row(experiments: Path, found: StudyFiles, trial_id: str) -> SummaryTrial:
    record = found.trials[trial_id]
    evaluated = trial_id if trial_id in found.tests else record.duplicate_of or trial_id
    tests = found.tests.get(evaluated)
    return SummaryTrial(
        trial_id=trial_id,
        number=record.number,
        state=record.state,
        value=record.best.value if record.best else None,
        test_f1_macro=tests.criteria_matching.f1_macro if tests else None,
        epoch=record.epoch,
        seconds=record.seconds,
        bytes=found.sizes.get(trial_id, 0),
        resumes=record.resumes,
        duplicate_of=record.duplicate_of,
        error=record.error.kind if record.error else None,
        parameters=record.parameters,
        report=_report_of(experiments, evaluated),
    )


def _best(found: StudyFiles, trials: Sequence[SummaryTrial]) -> SummaryBest | None:
    """The completed trial with the best validation value, the first one of equals. Test scores are not used."""
    first = next(iter(trials), None)
    if first is None or first.state != "completed" or (value := scored(first)) is None:
        return None
    return SummaryBest(
        trial_id=first.trial_id,
        number=first.number,
        value=value,
        test_metrics=found.tests.get(first.trial_id),
        report=first.report,
    )


def _scores(experiments: Path, found: StudyFiles, rows: Sequence[SummaryTrial]) -> dict[str, Scores]:
    """The scores of these trials with their samples, by trial_id."""
    scores = {}
    for row in rows:
        folder = paths.trial_dir(experiments, row.duplicate_of or row.trial_id)
        scores[row.trial_id] = found.attempt(f"{folder.name}/{paths.PREDICTIONS}", partial(scores_of, folder), Scores())
    return scores


def _importance(study: StudyRecord, trials: Sequence[SummaryTrial]) -> dict[str, ParameterImportance]:
    """The parameter importance over the completed trials that are not duplicates."""
    told = [
        (row.parameters, value)
        for row in trials
        if row.state == "completed" and row.duplicate_of is None and (value := scored(row)) is not None
    ]
    return parameter_importance(space_of(study), told)


def _storage(found: StudyFiles, moments: Sequence[Moment]) -> StorageSummary:
    retention = found.study.config.get("retention")
    budget = retention.get("max_total_size") if isinstance(retention, dict) else None
    return StorageSummary(
        now=sum(found.sizes.values()),
        highest=max((moment.on_disk for moment in moments), default=0),
        written=moments[-1].written if moments else 0,
        keep_all=moments[-1].keep_all if moments else 0,
        budget=budget if isinstance(budget, int) else None,
    )
