"""Evaluation of a model: predictions, metrics, the evaluation report."""
