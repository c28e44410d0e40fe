"""Checkpoints on disk: their commit protocol, what is kept of them, and how a trial's state goes in and out."""
