"""Checkpoints on disk: how they are committed, which are kept, how a trial's state is saved and loaded."""
