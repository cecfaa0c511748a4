"""Losses: plain functions and modules on tensors, usable without Lightning and without this library's network."""

from gscnn_lightning.losses.boundary_bce import BoundaryBCE, boundary_bce
from gscnn_lightning.losses.dual_task import (
    DualTaskLoss,
    boundary_attention_loss,
    boundary_potential,
    dual_task_loss,
    spatial_gradient,
    triangle_filter,
)
from gscnn_lightning.losses.image_weighted_ce import (
    ImageWeightedCrossEntropy,
    balanced_class_weights,
    image_class_weights,
    image_weighted_cross_entropy,
)
from gscnn_lightning.losses.joint import GSCNNLoss

__all__ = [
    "BoundaryBCE",
    "DualTaskLoss",
    "GSCNNLoss",
    "ImageWeightedCrossEntropy",
    "balanced_class_weights",
    "boundary_attention_loss",
    "boundary_bce",
    "boundary_potential",
    "dual_task_loss",
    "image_class_weights",
    "image_weighted_cross_entropy",
    "spatial_gradient",
    "triangle_filter",
]
