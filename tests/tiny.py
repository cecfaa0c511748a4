"""A checkpoint of a tiny untrained network, for the tools that read checkpoints."""

import torch

from gscnn_lightning import GSCNNTask

SETTINGS = {
    "backbone": "test_resnet",
    "pretrained": False,
    "channels": 16,
    "skip_channels": 8,
    "shape_channels": 16,
    "output_stride": 32,
    "boundary_tolerances": [1, 3],
}


def write_checkpoint(path, table, seed=0, **settings):
    """Save a task with the classes of a table, as a run would; returns the task in evaluation mode."""
    torch.manual_seed(seed)
    task = GSCNNTask(num_classes=len(table), class_names=list(table.names), **{**SETTINGS, **settings})
    content = {
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "pytorch-lightning_version": "2.5.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return task.eval()
