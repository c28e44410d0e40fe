"""A checkpoint's description, for tests that care for the bytes beside it."""

from collections.abc import Callable

import pytest

from redsm5.engine.documents import now
from redsm5.engine.records import Manifest

TRIAL_ID = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    def make(epoch: int = 1, *, step: int | None = None, batches: int = 0, score: float | None = 0.5) -> Manifest:
        return Manifest(
            format_version=1,
            code_version="0.1.0",
            trial_id=TRIAL_ID,
            architecture="bert: 2 layers",
            head_config={"max_length": 64},
            epoch=epoch,
            batches_done=batches,
            step=epoch * 10 if step is None else step,
            score=score,
            metrics={},
            data_fingerprint="ab" * 32,
            seed=42,
            created_at=now(),
        )

    return make
