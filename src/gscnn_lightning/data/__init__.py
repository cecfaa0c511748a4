"""Data modules for street scenes and the boundary maps made from their labels."""

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.classes import CAMVID, CITYSCAPES, IGNORE_INDEX, ClassTable
from gscnn_lightning.data.base import SegmentationDataModule, SegmentationDataset
from gscnn_lightning.data.camvid import CamVidDataModule
from gscnn_lightning.data.cityscapes import CityscapesDataModule
from gscnn_lightning.data.coco import CocoDataModule
from gscnn_lightning.data.folder import FolderDataModule
from gscnn_lightning.data.hugging_face import HuggingFaceDataModule
from gscnn_lightning.data.label_studio import LabelStudioDataModule
from gscnn_lightning.data.scenes import ScenesDataModule
from gscnn_lightning.data.shards import ShardsDataModule
from gscnn_lightning.data.source import Source
from gscnn_lightning.data.yolo import YoloDataModule

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "IGNORE_INDEX",
    "CamVidDataModule",
    "CityscapesDataModule",
    "ClassTable",
    "CocoDataModule",
    "FolderDataModule",
    "HuggingFaceDataModule",
    "LabelStudioDataModule",
    "ScenesDataModule",
    "SegmentationDataModule",
    "SegmentationDataset",
    "ShardsDataModule",
    "Source",
    "YoloDataModule",
    "label_boundaries",
]
