"""How good a model is: predictions, metrics, the evaluation report."""
