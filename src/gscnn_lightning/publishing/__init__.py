"""From a run to the folder of a model hub: weights, config, picture, and a model card of the run's own files."""
