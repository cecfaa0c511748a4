"""Class-balanced binary cross-entropy on the boundary map (Xie and Tu, HED, ICCV 2015, eq. 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import check_floating
from gscnn_lightning.losses.checks import Variant, check_boundaries, check_ignore, check_variant, full_precision
from gscnn_lightning.losses.processes import over_processes, stacked_over_processes


def boundary_bce(
    logits: Tensor,
    boundaries: Tensor,
    ignore: Tensor | None = None,
    variant: Variant = "paper",
    sync: bool = False,
) -> Tensor:
    """Binary cross-entropy in which boundary and other pixels weigh the same in total.

    Positives are weighted by the share of negatives and vice versa, both counted over the batch, which is that of the
    own process unless ``sync`` is given. "release" applies the sigmoid twice and keeps ignored pixels in the
    denominator, as the published checkpoint was trained.

    Args:
        logits: (B, 1, H, W) boundary logits.
        boundaries: (B, 1, H, W) or (B, H, W), 1 on boundaries, 0 elsewhere, of any type; larger values are ignored.
            So in a map of 0 and 255 there is nothing to learn: make it one of 0 and 1.
        ignore: (B, 1, H, W) or (B, H, W) bool, further pixels to leave out.
        variant: "paper" or "release".
        sync: count and average over the pixels of all processes, see `over_processes`.

    Returns:
        Scalar, at least 0; 0 with zero gradient if all pixels are of one kind, since the other's share is then 0.

    Raises:
        ValueError: shapes do not belong together, or the variant is unknown; on CPUs, also if ``boundaries`` holds
            something else, or 255 and no 1 beside what is in ``ignore`` (without ``ignore``, that is a warning).

    Example:
        >>> logits = torch.tensor([0.0, 0.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
        >>> round(boundary_bce(logits, torch.tensor([[[1, 0], [0, 0]]])).item(), 4)  # 2 * 3/16 * log 2
        0.2599
    """
    check_variant(variant)
    check_floating("logits", logits)
    if ignore is not None:
        check_ignore(logits, ignore)
    check_boundaries(logits, boundaries, ignore)
    return balanced_mean(logits, boundaries, ignore, variant, sync)


def balanced_mean(
    logits: Tensor, boundaries: Tensor, ignore: Tensor | None, variant: Variant, sync: bool = False
) -> Tensor:
    """:func:`boundary_bce` of what has been checked."""
    logits = full_precision(logits)
    target = boundaries.view_as(logits)
    if ignore is not None:
        target = torch.where(ignore.view_as(logits), 2, target)
    positive, negative = target == 1, target == 0
    n_positive, n_negative = positive.sum(dtype=logits.dtype), negative.sum(dtype=logits.dtype)
    if sync:
        n_positive, n_negative = stacked_over_processes(n_positive, n_negative)
    labelled = (n_positive + n_negative).clamp(min=1)
    weight = torch.where(positive, n_negative / labelled, negative * (n_positive / labelled))
    if variant == "release":
        logits = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), weight, reduction="sum")
    count = torch.full_like(loss, logits.numel()) if variant == "release" else labelled
    if sync:
        loss = over_processes(loss)
        count = over_processes(count) if variant == "release" else count
    return loss / count


class BoundaryBCE(nn.Module):
    """Module form of :func:`boundary_bce`, with the same arguments."""

    def __init__(self, variant: Variant = "paper", sync: bool = False) -> None:
        super().__init__()
        check_variant(variant)
        self.variant = variant
        self.sync = sync

    def forward(self, logits: Tensor, boundaries: Tensor, ignore: Tensor | None = None) -> Tensor:
        """Scalar loss of (B, 1, H, W) logits and boundaries."""
        return boundary_bce(logits, boundaries, ignore, self.variant, self.sync)
