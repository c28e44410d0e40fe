"""Studies and trials: the life of a trial, its launch, and the driver that searches."""
