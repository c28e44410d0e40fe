"""The sample model in the tests' cache; tests that need it are skipped where its package is not installed."""

from importlib import metadata
from pathlib import Path

import pytest

from redsm5 import sample_model


def need_package() -> None:
    try:
        metadata.distribution(sample_model.PACKAGE)
    except metadata.PackageNotFoundError as error:
        pytest.skip(str(error))


def unpacked() -> Path:
    """The folder where `model=minilm` looks for it; unpacked if it is not there yet."""
    need_package()
    sample_model.unpack(sample_model.folder())
    return sample_model.folder()
