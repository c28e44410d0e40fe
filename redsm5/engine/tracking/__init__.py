"""Metrics and logs of a run: the metric journal, the MLflow shipper, the logs."""
