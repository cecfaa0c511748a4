"""The one place that knows which variants of the losses there are, and what they ask of labels and boundary maps.

Shapes and data types are asked for everywhere. Values are looked at on CPUs only, and not where losses are compiled:
elsewhere that would wait for the device in every step, and what is out of range has no meaning.
"""

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from gscnn_lightning.checks import can_look, check_floating, check_shape, check_tensor, check_whole
from gscnn_lightning.errors import SettingError

Variant = Literal["paper", "release"]
"""The paper's losses, or those that the published checkpoint was trained with."""

_VARIANTS = get_args(Variant)


def full_precision(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay: losses compute in float32 under autocast."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_variant(variant: str) -> None:
    """Raise unless there is such a variant of the losses.

    Raises:
        SettingError: there is not.
    """
    if variant not in _VARIANTS:
        raise SettingError(f"variant is {variant!r}: use {' or '.join(map(repr, _VARIANTS))}")


def check_labels(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Labels as int64, after a check that they go with logits.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        ignore_index: label of void pixels.

    Returns:
        (B, H, W) int64.

    Raises:
        ValueError: shapes, data types or devices do not belong together; on CPUs, a label is out of range.
    """
    check_floating("logits", logits)
    check_tensor("labels", labels)
    shapes = f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]) or logits.shape[1] < 1:
        raise ValueError(f"{shapes}expected (B, K, H, W) and (B, H, W), with K of 1 or more")
    if logits.device != labels.device:
        raise ValueError(f"logits are on {logits.device} and labels on {labels.device}: move one to the other")
    return check_label_values(labels, logits.shape[1], ignore_index)


def check_label_values(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels as int64, after a check of data type and, on CPUs, of the range.

    Raises:
        ValueError: they are no integers, or no classes.
    """
    check_whole("ignore_index", ignore_index)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels has data type {labels.dtype}: give integers (labels.long())")
    labels = labels.long()
    if can_look(labels):
        low, high = (int(value) for value in labels.where(labels != ignore_index, 0).aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels has values from {low} to {high}: with {num_classes} classes they must be 0 to "
                f"{num_classes - 1} or ignore_index, {ignore_index}; map what is to be left out to that"
            )
    return labels


def check_boundaries(like: Tensor, boundaries: Tensor, void: Tensor | None = None) -> None:
    """Raise unless a tensor is a boundary map of a batch.

    Where it holds 255 and no 1, it may be void beside nothing. If it is known where void is, and 255 lies elsewhere,
    it is one of 0 and 255, on which nothing would be learnt; if it is not known, a warning says so.

    Args:
        like: (B, 1, H, W), logits of the boundaries.
        boundaries: (B, 1, H, W) or (B, H, W), 1 on boundaries, 0 elsewhere; larger values are ignored.
        void: of the size of ``like``, bool, pixels that are left out anyway; None if they are not known.

    Raises:
        ValueError: shapes do not belong together; on CPUs, values have no meaning.
    """
    check_tensor("boundaries", boundaries)
    B, *_, H, W = like.shape
    if like.shape != (B, 1, H, W) or boundaries.shape not in ((B, 1, H, W), (B, H, W)):
        raise ValueError(
            f"logits have shape {tuple(like.shape)} and boundaries {tuple(boundaries.shape)}: "
            "expected (B, 1, H, W) both"
        )
    if boundaries.is_complex():
        raise ValueError(f"boundaries has data type {boundaries.dtype}: give 1 on boundaries and 0 elsewhere")
    if boundaries.dtype == torch.bool or not can_look(boundaries):
        return
    if boundaries.dtype != torch.uint8:
        strange = ~(boundaries >= 1) & (boundaries != 0)  # NaN, too
        if strange.any():
            raise ValueError(
                f"boundaries hold {boundaries[strange][0].item():g}: a map is 1 on boundaries, 0 elsewhere, and larger "
                "where it is ignored; of a soft map make one (boundaries > 0.5)"
            )
    if boundaries.amax() == 255 and not (boundaries == 1).any():
        told = (
            "boundaries hold 255 and no 1: 255 is left out, and nothing is learnt; of a map of 0 and 255 make one of 0 "
            "and 1 (boundaries == 255)"
        )
        if void is None:
            warnings.warn(told, stacklevel=3)
        elif ((boundaries == 255).view(like.shape) & ~void.view(like.shape)).any():
            raise ValueError(told)


def check_ignore(like: Tensor, ignore: Tensor) -> None:
    """Raise unless a tensor says which pixels of a map (B, 1, H, W) are to be left out.

    Raises:
        ValueError: it is not (B, 1, H, W) or (B, H, W) bool.
    """
    check_tensor("ignore", ignore)
    if ignore.ndim == 3:
        ignore = ignore.unsqueeze(1)
    check_shape("ignore", ignore, like.shape)
    if ignore.dtype != torch.bool:
        raise ValueError(f"ignore has data type {ignore.dtype}: give bool")
