"""Expected calibration error: whether a network is right as often as it says, everywhere and near true boundaries."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.metrics.label_maps import tolerance_radii

BAND = 3.0
"""Reach of the band of the boundaries in pixels, if nothing else is said."""

# Sums are kept as whole numbers of this part of 1: every 32-bit probability down to 1/512 is one, so that no sum
# depends on order, batches or processes. Apple's MPS, which has no float64, holds them, too.
_PARTS = 2**32


def calibration_error(
    probabilities: Tensor, target: Tensor, bins: int = 15, width: float = BAND, ignore_index: int | None = 255
) -> dict[str, Tensor]:
    r"""Expected calibration error of the predicted class, over all labelled pixels and near true boundaries.

    With the pixels :math:`B_m` whose largest probability, the confidence, lies in :math:`((m - 1) / M, m / M]`,

    .. math::
        \mathrm{ECE} = \sum_{m = 1}^{M} \frac{|B_m|}{n} \left| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \right|

    Best value 0, worst 1, lower is better; NaN without labelled pixels. Near a boundary is a pixel that has another
    true class within a Euclidean distance, by the rule of :func:`gscnn_lightning.data.label_boundaries`; contact with
    void is none.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, section 2.

    Args:
        probabilities: (B, K, H, W) float, probabilities of the classes as predicted, after windows, scales and flips.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        bins: number of bins M of one width, >= 1.
        width: reach of the band on either side of a boundary, > 0. From 1 on, pixels; below 1, a fraction of the image
            diagonal, rounded up to whole pixels.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        "ece" and "ece_boundary", scalars; "pixels", "confidence" and "accuracy", (2, M) each, of all pixels and of the
        band by bin, NaN where there is no pixel. float64 on the CPU.

    Raises:
        ValueError: if shapes, data types, values, ``bins`` or ``width`` are out of range.

    Example:
        Four pixels of confidence 0.8, of which three are right:

        >>> probabilities = torch.tensor([0.8, 0.2])[None, :, None, None].expand(1, 2, 1, 4)
        >>> round(calibration_error(probabilities, torch.tensor([[[0, 0, 0, 1]]]))["ece"].item(), 4)
        0.05
    """
    metric = CalibrationError(bins, width, ignore_index)
    metric.update(probabilities, target)
    return metric.compute()


class CalibrationError(Metric):
    """Expected calibration error of a data set, from sums over all images.

    Formula and conventions are those of :func:`calibration_error`. Best value 0, worst 1.

    As input to ``forward`` and ``update``: ``probabilities`` (B, K, H, W) float and ``target`` (B, H, W) integer, on
    any device. As output of ``compute``: what :func:`calibration_error` returns, float64 on the CPU.

    Args:
        bins: number of bins, >= 1.
        width: reach of the band of the boundaries, as in :func:`calibration_error`.
        ignore_index: target value to leave out; ``None`` for none.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> metric = CalibrationError(bins=10)
        >>> for label in (0, 0, 1, 1):
        ...     metric.update(torch.tensor([0.75, 0.25])[None, :, None, None], torch.full((1, 1, 1), label))
        >>> metric.compute()["ece"].item()
        0.25
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    counts: Tensor
    correct: Tensor
    confidence: Tensor

    def __init__(self, bins: int = 15, width: float = BAND, ignore_index: int | None = 255, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ValueError(f"bins is {bins}; give a number of 1 or more")
        if not 0 < width < math.inf:
            raise ValueError(f"width is {width!r}; give a finite reach > 0, below 1 as a fraction of the diagonal")
        self.bins = bins
        self.width = width
        self.ignore_index = ignore_index
        # Of all pixels, and of the band; a sum of confidence as its whole part and the rest in `_PARTS`.
        zeros = torch.zeros(2, bins, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")
        self.add_state("correct", default=zeros.clone(), dist_reduce_fx="sum")
        self.add_state("confidence", default=torch.zeros(2, bins, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: (B, K, H, W) float, probabilities of the classes.
            target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or values are out of range.
        """
        _check(probabilities, target)
        radius = tolerance_radii([self.width], (target.shape[-2], target.shape[-1]))[0]
        for scores, labels in zip(probabilities.detach(), target, strict=True):
            confidence, preds = scores.max(dim=0)
            if confidence.device.type == "mps":
                confidence, preds, labels = confidence.cpu(), preds.cpu(), labels.cpu()
            counts, correct, sums = self._image_sums(confidence.double(), preds, labels, radius)
            whole = sums.floor()
            parts = ((sums - whole) * _PARTS).round()
            self.counts += counts.to(self.counts.device)
            self.correct += correct.to(self.counts.device)
            self.confidence += torch.stack([whole, parts], -1).long().to(self.counts.device)

    def _image_sums(
        self, confidence: Tensor, preds: Tensor, labels: Tensor, radius: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, right ones and confidence of an image, (2, M) each."""
        if confidence.numel() and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-4):
            found = f"[{confidence.min():g}, {confidence.max():g}]"
            raise ValueError(f"largest probabilities lie in {found}; give probabilities, logits after a softmax")
        ignored = -1 if self.ignore_index is None else self.ignore_index
        near = label_boundaries(labels, radius, ignored)
        place = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        labelled = labels != ignored if self.ignore_index is not None else torch.ones_like(labels, dtype=torch.bool)
        cells = (near.long() * self.bins + place)[labelled]
        right = (preds == labels)[labelled]

        def by_bin(weights: Tensor | None) -> Tensor:
            inner, band = torch.bincount(cells, weights, minlength=2 * self.bins).reshape(2, self.bins)
            return torch.stack([inner + band, band])

        return by_bin(None), by_bin(right.double()).long(), by_bin(confidence[labelled])

    def compute(self) -> dict[str, Tensor]:
        """Errors and bins of all batches so far."""
        counts, correct = self.counts.cpu().double(), self.correct.cpu().double()
        whole, parts = self.confidence.cpu().double().unbind(-1)
        confidence = whole + parts / _PARTS
        # Without the divisions by the number of pixels of a bin, which the sum of them takes back.
        ece, ece_boundary = (correct - confidence).abs().sum(-1) / counts.sum(-1)
        return {
            "ece": ece,
            "ece_boundary": ece_boundary,
            "pixels": counts,
            "confidence": confidence / counts,
            "accuracy": correct / counts,
        }


def _check(probabilities: Tensor, target: Tensor) -> None:
    if probabilities.ndim != 4 or target.shape != (probabilities.shape[0], *probabilities.shape[2:]):
        raise ValueError(
            f"probabilities have shape {tuple(probabilities.shape)} and target {tuple(target.shape)}; "
            "give (B, K, H, W) and (B, H, W)"
        )
    if not probabilities.is_floating_point():
        raise ValueError(f"probabilities have data type {probabilities.dtype}; give floating-point numbers")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target has data type {target.dtype}; give integer class labels")
