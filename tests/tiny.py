"""A checkpoint of a tiny untrained network, for the tools that read checkpoints."""

import torch
import yaml

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


def write_config(path, epochs=2):
    """Write a config of a training of seconds: a tiny network on tiny drawn scenes."""
    data = {"size": [64, 128], "train_samples": 8, "val_samples": 3, "batch_size": 2, "num_workers": 0}
    data |= {"crop_size": [64, 64], "color_jitter": 0.0, "blur": 0.0}
    trainer = {"max_epochs": epochs, "accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}
    logger = {"save_dir": "runs", "name": "tiny"}
    config = {
        "trainer": {
            **trainer,
            "logger": {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": logger},
        },
        "data": {"class_path": "gscnn_lightning.data.ScenesDataModule", "init_args": data},
        "model": SETTINGS,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path
