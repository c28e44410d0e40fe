"""What the scripts' tests share: each is run as a person or a program runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script() -> Run:
    def run(name: str, *arguments: object, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=60, check=False)

    return run
