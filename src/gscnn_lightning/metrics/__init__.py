"""Segmentation metrics as functions and as torchmetrics classes."""

from gscnn_lightning.metrics.boundary_fscore import BoundaryFScore, boundary_fscore
from gscnn_lightning.metrics.boundary_iou import BoundaryIoU, boundary_iou
from gscnn_lightning.metrics.boundary_ods import BoundaryODS, boundary_ods
from gscnn_lightning.metrics.calibration import CalibrationError, calibration_error
from gscnn_lightning.metrics.cityscapes import CityscapesScores
from gscnn_lightning.metrics.distance_crops import DistanceCropIoU, distance_crop_iou
from gscnn_lightning.metrics.segmentation import SegmentationScores
from gscnn_lightning.metrics.trimap import TrimapIoU, trimap_iou

__all__ = [
    "BoundaryFScore",
    "BoundaryIoU",
    "BoundaryODS",
    "CalibrationError",
    "CityscapesScores",
    "DistanceCropIoU",
    "SegmentationScores",
    "TrimapIoU",
    "boundary_fscore",
    "boundary_iou",
    "boundary_ods",
    "calibration_error",
    "distance_crop_iou",
    "trimap_iou",
]
