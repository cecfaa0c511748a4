"""Data modules for street scenes and the boundary maps made from their labels."""

from gscnn_lightning.data.base import SegmentationDataModule, SegmentationDataset, Source
from gscnn_lightning.data.boundaries import label_boundaries
from gscnn_lightning.data.camvid import CamVidDataModule
from gscnn_lightning.data.cityscapes import CityscapesDataModule
from gscnn_lightning.data.classes import CAMVID, CITYSCAPES, IGNORE_INDEX, ClassTable
from gscnn_lightning.data.folder import FolderDataModule
from gscnn_lightning.data.scenes_module import ScenesDataModule

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "IGNORE_INDEX",
    "CamVidDataModule",
    "CityscapesDataModule",
    "ClassTable",
    "FolderDataModule",
    "ScenesDataModule",
    "SegmentationDataModule",
    "SegmentationDataset",
    "Source",
    "label_boundaries",
]
