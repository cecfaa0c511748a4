"""Image-weighted cross-entropy, the segmentation loss of Gated-SCNN."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import are_numbers, check_tensor, check_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses.checks import Variant, check_label_values, check_labels, check_variant, full_precision
from gscnn_lightning.losses.processes import stacked_over_processes


def balanced_class_weights(shares: Sequence[float]) -> list[float]:
    """Weights that make rare classes count for more: ``1 / ln(1.02 + share)``, scaled so that a mean pixel has 1.

    Source: Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", 2016, section
    5.2. The constant keeps the ratio of any two weights below 36, so that a class of few pixels does not drown the
    others, as it does where weights are inverse to the share.

    Args:
        shares: share of every class among the labelled pixels of the training split, at least one above 0.

    Returns:
        A weight per class, above 0; 1 of a class without pixels, where it has no influence.

    Raises:
        SettingError: a share is negative or not finite, or all of them are 0.

    Example:
        >>> [round(weight, 3) for weight in balanced_class_weights([0.7, 0.299, 0.001])]
        [0.762, 1.493, 19.893]
    """
    if not are_numbers(shares, lambda share: share >= 0) or not any(shares):
        raise SettingError(f"shares is {shares!r}: give the share of every class, 0 or more, and one above 0")
    total = sum(shares)
    weights = [1 / math.log(1.02 + share / total) if share else 0.0 for share in shares]
    mean = sum(weight * share / total for weight, share in zip(weights, shares, strict=True))
    return [weight / mean if share else 1.0 for weight, share in zip(weights, shares, strict=True)]


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Raise unless there is a weight of 0 or more for every class, and one above 0.

    Raises:
        SettingError: there is not; the message names the first class.
    """
    listed = list(weights) if isinstance(weights, Sequence) and not isinstance(weights, str) else None
    if listed is None or not are_numbers(listed, lambda weight: weight >= 0):
        wrong = [i for i, w in enumerate(listed or []) if not are_numbers([w], lambda weight: weight >= 0)]
        place = f": that of class {wrong[0]} is {listed[wrong[0]]}" if listed and wrong else ""
        raise SettingError(f"class_weights is {weights!r}{place}: give a finite number of 0 or more for every class")
    if len(listed) != num_classes:
        raise SettingError(f"class_weights has {len(listed)} weights for {num_classes} classes: give one for each")
    if not any(listed):
        raise SettingError("class_weights are all 0, which trains nothing: give some class a weight above 0")


def image_class_weights(
    labels: Tensor, num_classes: int, ignore_index: int = 255, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Weight of every class in every image: ``2 - f`` for a share ``f`` of the labelled pixels, 1 where absent.

    Args:
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        num_classes: number of classes K.
        ignore_index: label of void pixels.
        dtype: precision of the weights, float32 or float64.

    Returns:
        (B, K) in [1, 2].

    Raises:
        ValueError: an argument is not of this kind; on CPUs, also if a label is out of range.
    """
    check_whole("num_classes", num_classes, 1)
    check_tensor("labels", labels)
    if labels.ndim != 3:
        raise ValueError(f"labels has shape {tuple(labels.shape)}: give (B, H, W)")
    if dtype not in (torch.float32, torch.float64):
        raise SettingError(f"dtype is {dtype}: use torch.float32 or torch.float64")
    return _class_weights(check_label_values(labels, num_classes, ignore_index), num_classes, ignore_index, dtype)


def _class_weights(labels: Tensor, num_classes: int, ignore_index: int, dtype: torch.dtype) -> Tensor:
    flat = labels.flatten(1)
    valid = flat != ignore_index
    if labels.device.type == "cpu":
        counts = torch.zeros(flat.shape[0], num_classes, dtype=dtype, device=labels.device)
        counts = counts.scatter_add(1, flat.where(valid, 0), valid.to(dtype))
    else:
        # All pixels of a GPU would wait for each other at the counters of few classes; comparing them is done at once.
        classes = torch.arange(num_classes, device=labels.device).unsqueeze(1)
        counts = (flat.where(valid, -1).unsqueeze(1) == classes).sum(dim=2, dtype=dtype)
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(counts > 0, 2 - share, 1)


def image_weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    variant: Variant = "paper",
    sync: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with class weights of each image: the weighted mean over its labelled pixels.

    The paper only says cross-entropy; the weighting is that of the released program. "paper" averages over the images
    that have labels, so that the loss does not grow with the batch; "release" sums over the images.

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        ignore_index: label of void pixels, which change nothing.
        variant: "paper" or "release".
        sync: over the images of all processes, see `over_processes`.
        class_weights: (K,) weights of the classes, 0 or more, by which those of each image are multiplied, such as
            `balanced_class_weights`. As the loss is a weighted mean, their ratios are all that matters.

    Returns:
        Scalar, at least 0; 0 with zero gradient if no pixel is labelled.

    Raises:
        ValueError: shapes or data types do not belong together, or the variant is unknown; on CPUs, also if a label is
            out of range.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).T.reshape(1, 2, 1, 2)
        >>> round(image_weighted_cross_entropy(logits, torch.tensor([[[0, 1]]])).item(), 4)
        0.1269
    """
    check_variant(variant)
    labels = check_labels(logits, labels, ignore_index)
    nll = F.cross_entropy(full_precision(logits), labels, ignore_index=ignore_index, reduction="none")
    if class_weights is not None and class_weights.shape != (logits.shape[1],):
        raise ValueError(
            f"class_weights has shape {tuple(class_weights.shape)}: give one weight for each of {logits.shape[1]} "
            "classes"
        )
    return image_weighted_mean(nll, labels, logits.shape[1], ignore_index, variant, sync, class_weights)


def image_weighted_mean(
    nll: Tensor,
    labels: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    variant: Variant = "paper",
    sync: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean of a cross-entropy that is known pixel by pixel, weighted as :func:`image_weighted_cross_entropy` does.

    Args:
        nll: (B, H, W) float, minus the logarithm of the probability of the true class.
        labels: (B, H, W) int64, 0 to K - 1 or ``ignore_index``, where ``nll`` has no influence.
        num_classes: number of classes K.
        ignore_index: label of void pixels.
        variant: "paper" or "release".
        sync: over the images of all processes.
        class_weights: (K,) further weights of the classes, None for 1.

    Returns:
        Scalar.
    """
    weights = _class_weights(labels, num_classes, ignore_index, nll.dtype)
    if class_weights is not None:
        weights = weights * class_weights.to(nll.dtype)
    valid = labels != ignore_index
    per_pixel = weights.gather(1, labels.where(valid, 0).flatten(1)) * valid.flatten(1)
    total = per_pixel.sum(dim=1)
    # By 1 where there is nothing: the gradient is finite then, too, whatever it is multiplied by, which is the scale of
    # half precision or the number of processes.
    per_image = (per_pixel * nll.flatten(1)).sum(dim=1) / total.masked_fill(total == 0, 1)
    loss, count = per_image.sum(), (total > 0).sum().clamp(min=1)
    if sync:
        loss, count = stacked_over_processes(loss, (total > 0).sum(dtype=loss.dtype))
        count = count.clamp(min=1)
    return loss if variant == "release" else loss / count


class ImageWeightedCrossEntropy(nn.Module):
    """Module form of :func:`image_weighted_cross_entropy`, with the same arguments; weights of classes as numbers."""

    class_weights: Tensor | None

    def __init__(
        self,
        ignore_index: int = 255,
        variant: Variant = "paper",
        sync: bool = False,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_variant(variant)
        check_whole("ignore_index", ignore_index)
        self.ignore_index = ignore_index
        self.variant = variant
        self.sync = sync
        if class_weights is not None:
            check_class_weights(class_weights, len(class_weights))
        self.register_buffer("class_weights", None if class_weights is None else torch.tensor(class_weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of (B, K, H, W) logits and (B, H, W) labels."""
        return image_weighted_cross_entropy(
            logits, labels, self.ignore_index, self.variant, self.sync, self.class_weights
        )
