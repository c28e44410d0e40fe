"""ReDSM5's configuration: the engine's (redsm5/engine/spec.py), and data, symptoms, model and training.

Hydra composes it from redsm5/conf, redsm5/sections.py checks it, and it is saved per trial.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from redsm5.engine import compose as composing
from redsm5.engine import paths
from redsm5.engine.errors import ConfigError, nearest
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.spec import ENGINE_CONF, Condition, StudySpec
from redsm5.sections import CONDITIONS, LOSS, VALIDATION_METRICS, DataConfig, ModelConfig, TrainConfig


class Config(StudySpec):
    """Everything that a trial depends on.

    Attributes:
        symptoms: describes each symptom in words, by its name in the data; with binary_pairs the encoder reads the
            descriptions.
    """

    data: DataConfig
    symptoms: dict[str, Annotated[str, Field(min_length=1)]]
    model: ModelConfig
    train: TrainConfig

    CONF: ClassVar[tuple[Path, ...]] = (Path(__file__).parent / "conf", ENGINE_CONF)
    CONDITIONS: ClassVar[Mapping[str, Condition]] = CONDITIONS
    IDENTITIES: ClassVar[Mapping[str, str]] = {"model": "model.model_id", "data": "data.source"}
    LEGACY: ClassVar[Mapping[str, Any]] = {
        "data.group_duplicates": False,
        "data.path": None,
        "data.columns": None,
        "data.validation_seed": None,
        "data.folds": None,
        "data.alignment": "window",
        "data.test_split": "stratified",
    }
    SECTIONS: ClassVar[tuple[str, ...]] = ("data", "model", *StudySpec.SECTIONS)
    NOT_SEARCHED: ClassVar[tuple[str, ...]] = ("data", *StudySpec.NOT_SEARCHED)

    @property
    def entry_point(self) -> Path:
        return SCRIPTS / "train.py"

    @property
    def entry_module(self) -> str:
        return "redsm5.train"

    @property
    def report_file(self) -> str:
        return paths.REPORT

    @property
    def folds(self) -> int:
        return self.data.folds or 1

    @property
    def one_thread(self) -> bool:
        return self.model.model_id == "tiny"

    @classmethod
    def can_be_searched(cls, key: str) -> bool:
        # How posts are read may be searched; which posts there are, and their split, are the same for all trials.
        return key in ("data.long_posts", "data.window_overlap") or super().can_be_searched(key)

    @model_validator(mode="after")
    def _precision_fits_device(self) -> Self:
        if self.train.mixed_precision == "fp16" and self.on_cpu:
            raise ConfigError(
                f"train.mixed_precision=fp16 with launch={self.launch}: fp16 is not supported on a CPU",
                remedy="Choose launch=gpu, or train.mixed_precision=bf16 or no.",
            )
        return self

    @model_validator(mode="after")
    def _folds_have_one_length(self) -> Self:
        if self.data.folds and self.train.patience is not None:
            raise ConfigError(
                f"train.patience={self.train.patience} with data.folds={self.data.folds}: a fold that ended early, at "
                "its best epoch, would make the score too good",
                remedy="Leave train.patience out, or data.folds.",
            )
        return self

    @model_validator(mode="after")
    def _metric_is_logged(self) -> Self:
        metric, allowed = self.study.metric, VALIDATION_METRICS if self.maximize else (LOSS,)
        if metric in allowed:
            return self
        if self.maximize and "loss" in metric:
            raise ConfigError(
                f"study.metric={metric} is a loss, but the metric is maximized",
                remedy=f"Choose a score: {', '.join(allowed)}; or study.metric={LOSS} study.direction=minimize.",
            )
        if metric in VALIDATION_METRICS:
            raise ConfigError(
                f"study.metric={metric} is a score, but study.direction=minimize",
                remedy=f"Leave study.direction out, or choose study.metric={LOSS}.",
            )
        raise ConfigError(
            f"study.metric={metric} is not logged by a trial{nearest(metric, allowed)}",
            remedy=f"Allowed: {', '.join(allowed)}.",
        )


def compose(overrides: Sequence[str]) -> Config:
    """ReDSM5's configuration for these overrides; see redsm5/engine/compose.py."""
    return composing.compose(Config, overrides)
