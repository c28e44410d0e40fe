"""An exported model as an MLflow model: `just export --mlflow` registers it, and `mlflow models serve` serves it.

It takes a table with the column `text`, and answers with the columns of `just predict`'s CSV but for post_id. It is
loaded by code (MLflow's models-from-code), which needs redsm5 where it is served; nothing is pickled.
"""

import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redsm5 import __version__
from redsm5.data.posts import SYMPTOMS
from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, TrainingError
from redsm5.engine.installed import command
from redsm5.engine.jsonio import dumps
from redsm5.engine.records import Shipped, StudyRecord, TrialRecord
from redsm5.engine.redaction import redact
from redsm5.engine.spec import load_snapshot
from redsm5.engine.tracking import local
from redsm5.engine.tracking.tracker import Tracker
from redsm5.evaluation.outputs import flat, row_of

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc.model import PythonModel

NAME = "redsm5"  # of the registered model, if no other is given
ARTIFACT = "model"
CODE = """from mlflow.models import set_model

from redsm5.evaluation.served import python_model

set_model(python_model())
"""


def python_model() -> "PythonModel":
    """What MLflow loads and asks."""
    from mlflow.pyfunc.model import PythonModel  # takes seconds

    class SymptomModel(PythonModel):
        def load_context(self, context: Any) -> None:
            from redsm5.evaluation.trained import load

            self.model = load(context.artifacts[ARTIFACT])

        # Without types, from which MLflow would guess a signature.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            """A table with the columns of `just predict`, for a table with the column `text`."""
            import pandas  # type: ignore[import-untyped]

            texts = [str(text) for text in model_input["text"]]
            rows = []
            for text, prediction in zip(texts, self.model.predict(texts), strict=True):
                row = flat(row_of("", text, prediction, with_text=False))
                del row["post_id"]
                rows.append(row | {"evidence": dumps(row["evidence"]).decode()})
            return pandas.DataFrame(rows)

    return SymptomModel()


def signature() -> "ModelSignature":
    """The columns that the model takes and gives."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    kinds = dict.fromkeys(SYMPTOMS, DataType.double)
    kinds |= {f"{name}_present": DataType.boolean for name in SYMPTOMS} | {"evidence": DataType.string}
    inputs = Schema([ColSpec(DataType.string, "text")])
    return ModelSignature(inputs, Schema([ColSpec(kind, name) for name, kind in kinds.items()]))


def register(exported: Path, trial: Path, record: TrialRecord, name: str) -> str:
    """Register an exported model with the MLflow of the trial's study, in the experiment of the trial's run.

    Returns:
        Its address, models:/NAME/VERSION.

    Raises:
        TrainingError: MLflow refuses it, or does not answer.
    """
    uri = _address(trial, record)
    try:
        tracker = Tracker(uri, trial.parent / paths.MLFLOW_ARTIFACTS)
        tracker.ship(trial)  # so that there is a run
        shipped = load(trial / paths.SHIPPED, Shipped)
        if shipped is None:
            raise InputError(
                "the trial has no run in MLflow",
                where=str(trial),
                remedy=f"Run `{command('sync', experiments=trial.parent)}` first.",
            )
        with _tracking(uri):
            return _logged(exported, record, shipped.run_id, name)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("mlflow", "requests", "urllib3"):
            raise
        check = command("doctor", "--tracking-uri", "URI", experiments=trial.parent)
        raise TrainingError(
            f"MLflow did not take the model: {redact(str(error).splitlines()[0])}",
            where=redact(uri),
            remedy=f"The folder {exported} is complete. Check MLflow (`{check}`), then export to another folder.",
        ) from None


def _address(trial: Path, record: TrialRecord) -> str:
    """MLflow's address: that of the study's last run, or of the trial's own configuration."""
    study = load(paths.study_dir(trial.parent, record.study_id) / paths.STUDY, StudyRecord) if record.study_id else None
    config = paths.moved((study.config if study else load_snapshot(trial)) or {}, trial.parent)
    return str((config.get("study") or {}).get("tracking_uri") or local.own_uri(trial.parent))


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """MLflow's calls go to this address, and say nothing on the terminal."""
    import mlflow

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(local.as_url(uri))
    mlflow.set_registry_uri(local.as_url(uri))
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def _logged(exported: Path, record: TrialRecord, run_id: str, name: str) -> str:
    import mlflow

    experiment = mlflow.MlflowClient().get_run(run_id).info.experiment_id
    mlflow.set_experiment(experiment_id=experiment)
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        code = Path(scratch) / "model.py"
        code.write_text(CODE)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={ARTIFACT: str(exported.absolute())},
            signature=signature(),
            pip_requirements=[f"redsm5=={__version__}"],
            registered_model_name=name,
            tags={"trial_id": record.trial_id},
        )
    return f"models:/{name}/{logged.registered_model_version}"
