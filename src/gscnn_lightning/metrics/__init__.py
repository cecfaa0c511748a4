"""Segmentation metrics as functions and as torchmetrics classes."""

from gscnn_lightning.metrics.boundary_fscore import BoundaryFScore, boundary_fscore
from gscnn_lightning.metrics.segmentation import SegmentationScores

__all__ = ["BoundaryFScore", "SegmentationScores", "boundary_fscore"]
