"""Frames packed into litdata shards, read from a folder or an object store."""

from gscnn_lightning.data.shards.datamodule import ShardsDataModule

__all__ = ["ShardsDataModule"]
