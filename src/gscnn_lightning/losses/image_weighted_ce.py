"""Image-weighted cross-entropy, the segmentation loss of Gated-SCNN."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import check_tensor, check_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses.checks import Variant, check_label_values, check_labels, check_variant, full_precision
from gscnn_lightning.losses.processes import stacked_over_processes


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
    logits: Tensor, labels: Tensor, ignore_index: int = 255, variant: Variant = "paper", sync: bool = False
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
    return image_weighted_mean(nll, labels, logits.shape[1], ignore_index, variant, sync)


def image_weighted_mean(
    nll: Tensor,
    labels: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    variant: Variant = "paper",
    sync: bool = False,
) -> Tensor:
    """Mean of a cross-entropy that is known pixel by pixel, weighted as :func:`image_weighted_cross_entropy` does.

    Args:
        nll: (B, H, W) float, minus the logarithm of the probability of the true class.
        labels: (B, H, W) int64, 0 to K - 1 or ``ignore_index``, where ``nll`` has no influence.
        num_classes: number of classes K.
        ignore_index: label of void pixels.
        variant: "paper" or "release".
        sync: over the images of all processes.

    Returns:
        Scalar.
    """
    weights = _class_weights(labels, num_classes, ignore_index, nll.dtype)
    valid = labels != ignore_index
    per_pixel = weights.gather(1, labels.where(valid, 0).flatten(1)) * valid.flatten(1)
    total = per_pixel.sum(dim=1)
    per_image = (per_pixel * nll.flatten(1)).sum(dim=1) / total.clamp(min=torch.finfo(nll.dtype).tiny)
    loss, count = per_image.sum(), (total > 0).sum().clamp(min=1)
    if sync:
        loss, count = stacked_over_processes(loss, (total > 0).sum(dtype=loss.dtype))
        count = count.clamp(min=1)
    return loss if variant == "release" else loss / count


class ImageWeightedCrossEntropy(nn.Module):
    """Module form of :func:`image_weighted_cross_entropy`, with the same arguments."""

    def __init__(self, ignore_index: int = 255, variant: Variant = "paper", sync: bool = False) -> None:
        super().__init__()
        check_variant(variant)
        check_whole("ignore_index", ignore_index)
        self.ignore_index = ignore_index
        self.variant = variant
        self.sync = sync

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of (B, K, H, W) logits and (B, H, W) labels."""
        return image_weighted_cross_entropy(logits, labels, self.ignore_index, self.variant, self.sync)
