"""Many trainings, or many checkpoints, in one table."""
