"""The joint multi-task loss of Gated-SCNN (section 3.4 of the paper)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import check_shape, check_whole, is_number
from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses.boundary_bce import balanced_mean
from gscnn_lightning.losses.checks import Variant, check_boundaries, check_labels, full_precision
from gscnn_lightning.losses.dual_task import DualTaskLoss, check_threshold, confident_labels
from gscnn_lightning.losses.image_weighted_ce import check_class_weights, image_weighted_mean
from gscnn_lightning.losses.thin import boundary_pixels_mean, soft_dice
from gscnn_lightning.output import GSCNNOutput


class GSCNNLoss(nn.Module):
    """L = l1 * L_boundary + l2 * L_seg + l3 * L_reg + l4 * L_att.

    The weights are the paper's lambda_1 to lambda_4 as plain numbers: what is written is what is multiplied. A term of
    the shape stream with weight 0 is not computed; a network without one is trained on the segmentation term alone, and
    on the two extensions where they are asked for.

    Args:
        num_classes: number of classes K.
        boundary: weight of the boundary loss, at least 0.
        segmentation: weight of the segmentation loss, at least 0.
        regularizer: weight of the dual task regularizer, at least 0.
        attention: weight of the cross-entropy on confident boundary pixels, at least 0.
        variant: "paper", or "release" for the losses that the published checkpoint was trained with.
        ignore_index: label of void pixels.
        boundary_threshold: boundary probability above which a pixel enters the attention term.
        tau: temperature of the Gumbel softmax; by default 1 ("paper") or 0.5 ("release").
        hard: straight-through Gumbel softmax.
        dice: weight of `soft_dice`, for classes of few pixels; an extension, 0 in the paper, of the control, too.
        edge: weight of the cross-entropy on true boundaries, `boundary_pixels_mean`; likewise.
        sync: every mean and balance is that of the images of all processes, so that n processes train as one with n
            times the batch; else that of the own images, as gradients are averaged. See `over_processes`.
        class_weights: K numbers of 0 or more by which the weights of the classes in each image are multiplied, in the
            segmentation term and, as it is the same cross-entropy, in the attention term; such as
            `balanced_class_weights`. They go into the state dict. None for the paper's.

    Raises:
        ValueError: an argument is out of range, such as a weight that is negative.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        boundary: float = 20.0,
        segmentation: float = 1.0,
        regularizer: float = 1.0,
        attention: float = 1.0,
        variant: Variant = "paper",
        ignore_index: int = 255,
        boundary_threshold: float = 0.8,
        tau: float | None = None,
        hard: bool = False,
        dice: float = 0.0,
        edge: float = 0.0,
        sync: bool = False,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_whole("num_classes", num_classes, 1)
        if class_weights is not None:
            check_class_weights(class_weights, num_classes)
        numbers = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", numbers)
        check_threshold("boundary_threshold", boundary_threshold)
        self.num_classes = num_classes
        self.weights = {
            "boundary": boundary,
            "segmentation": segmentation,
            "regularizer": regularizer,
            "attention": attention,
            "dice": dice,
            "edge": edge,
        }
        for name, weight in self.weights.items():
            if not is_number(weight, 0):
                raise SettingError(
                    f"the weight of the {name} loss is {weight}: use 0 to switch it off, or a positive number"
                )
        self.ignore_index = ignore_index
        self.boundary_threshold = boundary_threshold
        self.variant = variant
        self.sync = sync
        self.dual_task = DualTaskLoss(ignore_index, tau, hard=hard, variant=variant, sync=sync)

    def forward(
        self, output: GSCNNOutput, labels: Tensor, boundaries: Tensor, gumbel_noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted terms and their sum.

        Args:
            output: logits of the network at the size of the labels.
            labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
            boundaries: (B, 1, H, W) or (B, H, W), 1 on true boundaries, 0 elsewhere; not read where no term needs it.
            gumbel_noise: (B, K, H, W) replaces the random draw of the regularizer.

        Returns:
            "loss", and the weighted terms that are in it: "boundary", "segmentation", "regularizer", "attention",
            "dice", "edge".

        Raises:
            ValueError: number of classes, shapes or data types do not belong together; on CPUs, also if labels or
                boundaries are out of range.
        """
        if not isinstance(output, tuple):
            raise ValueError(
                f"output is a {type(output).__name__}: give GSCNNOutput(seg_logits, boundary_logits, gates), with None "
                "and () of a network without shape stream"
            )
        logits, boundary_logits, _ = output
        if logits.shape[1] != self.num_classes:
            raise SettingError(
                f"the network gives {logits.shape[1]} classes, but the loss was built for {self.num_classes}"
            )
        weights = self.weights
        labels = check_labels(logits, labels, self.ignore_index)
        B, _, H, W = logits.shape
        if boundary_logits is not None:
            check_shape("boundary_logits", boundary_logits, (B, 1, H, W))
        if weights["edge"] or (weights["boundary"] and boundary_logits is not None):
            check_boundaries(logits[:, :1], boundaries, labels == self.ignore_index)
        # What three of the terms need is computed once.
        log_probs = full_precision(logits).log_softmax(dim=1)
        nll = F.nll_loss(log_probs, labels, ignore_index=self.ignore_index, reduction="none")
        terms = {"segmentation": weights["segmentation"] * self._image_weighted(nll, labels)}
        if weights["dice"]:
            terms["dice"] = weights["dice"] * soft_dice(log_probs, nll, labels, self.ignore_index, self.sync)
        if weights["edge"]:
            terms["edge"] = weights["edge"] * boundary_pixels_mean(
                nll, labels, boundaries, self.ignore_index, self.sync
            )
        if boundary_logits is not None:
            if weights["boundary"]:
                # The published program knows no void here but what the boundary map itself leaves out.
                void = labels == self.ignore_index if self.variant == "paper" else None
                boundary = balanced_mean(boundary_logits, boundaries, void, self.variant, self.sync)
                terms["boundary"] = weights["boundary"] * boundary
            if weights["regularizer"]:
                terms["regularizer"] = weights["regularizer"] * self.dual_task.of_log_probs(
                    log_probs, labels, gumbel_noise
                )
            if weights["attention"]:
                prob = full_precision(boundary_logits).sigmoid()
                sure = confident_labels(labels, prob, self.boundary_threshold, self.ignore_index)
                terms["attention"] = weights["attention"] * self._image_weighted(nll, sure)
        return {**terms, "loss": sum(terms.values(), start=logits.new_zeros(()))}

    def _image_weighted(self, nll: Tensor, labels: Tensor) -> Tensor:
        return image_weighted_mean(
            nll, labels, self.num_classes, self.ignore_index, self.variant, self.sync, self.class_weights
        )
