"""Storage-bounded, resumable hyperparameter search for depression-symptom detection on ReDSM5."""

from redsm5.engine.version import __version__, code_version

__all__ = ["__version__", "code_version"]
