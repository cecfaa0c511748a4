"""The one place that knows which variants of the losses there are, and how they treat precision and shapes."""

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["paper", "release"]
"""The paper's losses, or those that the published checkpoint was trained with."""


def full_precision(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay: losses compute in float32 under autocast."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels as int64, after a check of the shapes.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer.

    Returns:
        (B, H, W) int64.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
            "expected (B, K, H, W) and (B, H, W)"
        )
    return labels.long()
