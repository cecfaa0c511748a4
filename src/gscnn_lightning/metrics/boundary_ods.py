"""Maximum F-score of a boundary probability map over thresholds: the measure of the shape stream itself."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from gscnn_lightning.checks import are_numbers, check_tensor, is_number
from gscnn_lightning.metrics.label_maps import check_ignore_index, tolerance_radii

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""0.01, 0.02, ..., 0.99, as in the Berkeley benchmark."""


def boundary_ods(
    preds: Tensor,
    target: Tensor,
    tolerance: float = 0.0075,
    thresholds: Sequence[float] = THRESHOLDS,
    ignore_index: int | None = 255,
) -> dict[str, Tensor]:
    r"""Best F-score of a batch of boundary maps over one common threshold (ODS, optimal data set scale).

    With :math:`A_t` the pixels whose probability is t or more, B the true boundary pixels, and :math:`d(p, S)` the
    Euclidean distance from pixel p to the nearest pixel of S,

    .. math::
        P_t = \frac{|\{a \in A_t : d(a, B) \le r\}|}{|A_t|}, \quad
        R_t = \frac{|\{b \in B : d(b, A_t) \le r\}|}{|B|}, \quad
        \mathrm{ODS} = \max_t \frac{2 P_t R_t}{P_t + R_t}

    with counts summed over all images. Best value 1, worst 0, NaN without true boundary pixels. Where predicted
    boundaries are as thick as the true ones, as those of the shape stream are meant to be, no thinning is needed and
    none is done; the Berkeley program thins them and pairs pixels one to one, which gives other numbers.

    All thresholds come from one pass: the highest threshold that a pixel passes is filtered with a disc, and its
    histogram on the true boundary counts the recall of each. The work is done by OpenCV on the CPU.

    Source: Arbeláez et al., Contour detection and hierarchical image segmentation, PAMI 2011, section 3.1.

    Args:
        preds: (B, 1, H, W) or (B, H, W) float, boundary probabilities in [0, 1].
        target: of the same shape, boundary maps of any type: 0, 1 or ``ignore_index``. So a map of 0 and 255 has no
            boundary; make it one of 0 and 1.
        tolerance: distance r, >= 0. From 1 on, pixels; below 1, a fraction of the image diagonal, rounded up to whole
            pixels.
        thresholds: T thresholds in (0, 1], ascending; 254 at most.
        ignore_index: target value of pixels that are neither predicted nor true boundary; ``None`` for none.

    Returns:
        "ods" and the "threshold" that gives it, and "precision" and "recall" (T,); float64 on the CPU.

    Raises:
        ValueError: if shapes, data types, values, ``tolerance`` or ``thresholds`` are out of range.

    Example:
        The true boundary is the third column; at 0.8 the prediction hits it and nothing else:

        >>> target = torch.tensor([[[0, 0, 1, 0, 0]] * 4])
        >>> preds = torch.tensor([[[0.0, 0.3, 0.9, 0.5, 0.1]] * 4])
        >>> scores = boundary_ods(preds, target, tolerance=0, thresholds=[0.2, 0.4, 0.8])
        >>> {name: [round(v, 2) for v in value.tolist()] for name, value in scores.items() if value.ndim}
        {'precision': [0.33, 0.5, 1.0], 'recall': [1.0, 1.0, 1.0]}
        >>> scores["ods"].item(), scores["threshold"].item()
        (1.0, 0.8)
    """
    _check_settings(tolerance, thresholds)
    return _scores(_counts(preds, target, tolerance, thresholds, ignore_index), thresholds)


class BoundaryODS(Metric):
    """Best boundary F-score of a data set over one common threshold.

    Formula and conventions are those of :func:`boundary_ods`; counts of all images are summed first. Best value 1,
    worst 0.

    As input to ``forward`` and ``update``: ``preds`` (B, 1, H, W) or (B, H, W) float in [0, 1] and ``target`` of the
    same shape, 0, 1 or ``ignore_index``, on any device. As output of ``compute``: "ods" and "threshold", scalars, and
    "precision" and "recall" (T,), float64 on the CPU.

    Args:
        tolerance: distance, as in :func:`boundary_ods`.
        thresholds: T thresholds in (0, 1], ascending; 254 at most.
        ignore_index: target value to leave out; ``None`` for none.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> target = torch.tensor([[[0, 0, 1, 0, 0]] * 4])
        >>> metric = BoundaryODS(tolerance=1)
        >>> metric.update(torch.tensor([[[0.0, 0.6, 0.2, 0.0, 0.1]] * 4]), target)
        >>> {name: round(metric.compute()[name].item(), 2) for name in ("ods", "threshold")}
        {'ods': 1.0, 'threshold': 0.11}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    counts: Tensor

    def __init__(
        self,
        tolerance: float = 0.0075,
        thresholds: Sequence[float] = THRESHOLDS,
        ignore_index: int | None = 255,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        _check_settings(tolerance, thresholds)
        self.tolerance = tolerance
        self.thresholds = tuple(thresholds)
        self.ignore_index = ignore_index
        zeros = torch.zeros(4, len(self.thresholds), dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, 1, H, W) or (B, H, W) float, boundary probabilities in [0, 1].
            target: of the same shape: 0, 1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or values are out of range.
        """
        counts = _counts(preds, target, self.tolerance, self.thresholds, self.ignore_index)
        self.counts += counts.to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Scores of all batches so far."""
        return _scores(self.counts, self.thresholds)


def _check_settings(tolerance: float, thresholds: Sequence[float]) -> None:
    if not is_number(tolerance, 0):
        raise ValueError(f"tolerance is {tolerance!r}; give a finite distance >= 0")
    in_range = are_numbers(thresholds, lambda threshold: 0 < threshold <= 1) and len(thresholds) <= 254
    if not in_range or list(thresholds) != sorted(set(thresholds)):
        raise ValueError(f"thresholds is {thresholds!r}; give 1 to 254 ascending numbers above 0, up to 1")


def _counts(
    preds: Tensor, target: Tensor, tolerance: float, thresholds: Sequence[float], ignore_index: int | None
) -> Tensor:
    """(4, T) int64 on the CPU: predicted pixels near a true one, predicted, true pixels near a predicted one, true."""
    for name, boundaries in (("preds", preds), ("target", target)):
        check_tensor(name, boundaries)
    check_ignore_index(ignore_index)
    if preds.shape != target.shape or preds.ndim not in (3, 4) or (preds.ndim == 4 and preds.shape[1] != 1):
        raise ValueError(
            f"preds has shape {tuple(preds.shape)} and target {tuple(target.shape)}; "
            "give boundary maps of the same shape, (B, 1, H, W) or (B, H, W)"
        )
    if not preds.is_floating_point():
        raise ValueError(f"preds has data type {preds.dtype}; give probabilities, logits after a sigmoid")
    height, width = preds.shape[-2:]
    radius = tolerance_radii([tolerance], (height, width))[0]
    prob = preds.detach().reshape(-1, height, width).float().cpu().contiguous()
    if prob.numel() and not (prob.min() >= 0 and prob.max() <= 1):
        raise ValueError(f"preds lies in [{prob.min():g}, {prob.max():g}]; give probabilities, logits after a sigmoid")
    limits = torch.tensor(thresholds, dtype=torch.float32)
    levels = torch.bucketize(prob, limits, right=True, out_int32=True).numpy().astype(np.uint8)
    counts = np.zeros((4, len(thresholds)), np.int64)
    for level, label in zip(levels, target.reshape(-1, height, width).cpu().numpy(), strict=True):
        counts += _image_counts(level, label, radius, len(thresholds), ignore_index)
    return torch.from_numpy(counts)


def _image_counts(
    level: npt.NDArray[np.uint8],
    label: npt.NDArray[np.generic],
    radius: float,
    num_thresholds: int,
    ignore_index: int | None,
) -> npt.NDArray[np.int64]:
    """(4, T) counts of one image; ``level`` is the number of thresholds that a pixel passes."""
    ignored = np.zeros(label.shape, bool) if ignore_index is None else label == ignore_index
    true = (label == 1) & ~ignored
    strange = (label != 0) & ~ignored & ~true
    if strange.any():
        meant = "0 or 1" if ignore_index is None else f"0, 1 or ignore_index {ignore_index}"
        raise ValueError(
            f"target contains {float(label[strange][0]):g}; boundary maps are {meant}: make one of another (target > 0)"
        )
    level = np.where(ignored, 0, level).astype(np.uint8)
    reach = math.floor(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.uint8)
    near_true, near_level = true, level
    if reach and level.size:
        near_true, near_level = cv2.dilate(true.view(np.uint8), disc) != 0, cv2.dilate(level, disc)
    return np.stack(
        [
            _passing(level[near_true], num_thresholds),
            _passing(level, num_thresholds),
            _passing(near_level[true], num_thresholds),
            np.full(num_thresholds, np.count_nonzero(true)),
        ]
    )


def _passing(level: npt.NDArray[np.uint8], num_thresholds: int) -> npt.NDArray[np.intp]:
    """(T,) number of pixels that pass each threshold."""
    histogram = np.bincount(level.ravel(), minlength=num_thresholds + 1)
    return histogram[::-1].cumsum()[::-1][1:]


def _scores(counts: Tensor, thresholds: Sequence[float]) -> dict[str, Tensor]:
    precise, predicted, found, true = counts.cpu().double()
    # Without a predicted pixel nothing is found either, and F is 0 whatever the precision is said to be.
    precision, recall = precise / predicted.clamp(min=1), found / true
    total = precision + recall
    fscore = 2 * precision * recall / total.where(total > 0, 1)
    best = fscore.argmax()
    return {
        "ods": fscore[best] if true.any() else torch.tensor(math.nan, dtype=torch.float64),
        "threshold": torch.tensor(thresholds, dtype=torch.float64)[best],
        "precision": precision,
        "recall": recall,
    }
