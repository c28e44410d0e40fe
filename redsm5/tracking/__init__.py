"""What a run leaves behind besides its checkpoints: the metric journal, its way to MLflow, the logs."""
