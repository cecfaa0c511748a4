"""The built-in data set: drawn street scenes with exact labels, nothing to download."""

from gscnn_lightning.data.scenes.datamodule import ScenesDataModule
from gscnn_lightning.data.scenes.draw import ScenesDataset, draw_scene, write_scenes

__all__ = ["ScenesDataModule", "ScenesDataset", "draw_scene", "write_scenes"]
