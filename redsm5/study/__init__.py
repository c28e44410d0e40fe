"""A study and its trials: the life of each, how it is launched, and the driver that searches."""
