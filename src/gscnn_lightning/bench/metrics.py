"""Boundary metrics beside plain formulations with SciPy: same values, other times."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.bench import print_table, time_side_by_side
from gscnn_lightning.errors import DataError
from gscnn_lightning.terminal import say

Labels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

_CLASSES = 19
_VOID = 255


def measure_metrics(
    labels: Path | None, tolerances: tuple[int, ...], distance: int, reach: float, repeats: int, threads: int
) -> None:
    """Print the tables of ``gscnn bench metrics``.

    Args:
        labels: official Cityscapes label map; by default a drawn street scene of 1024x2048.
        tolerances: tolerances of the boundary F-score in pixels.
        distance: width of the bands of Boundary IoU in pixels.
        reach: typical displacement of the prediction in pixels.
        repeats: number of timed rounds.
        threads: threads of torch and OpenCV.

    Raises:
        DataError: the label map cannot be read.
    """
    import torch

    from gscnn_lightning.metrics import boundary_fscore, boundary_iou

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    target = _drawn_labels() if labels is None else _read_labels(labels)
    preds = displaced(target, reach)
    pair = torch.from_numpy(preds)[None], torch.from_numpy(target)[None]
    radii = [float(tolerance) for tolerance in tolerances]
    fscore: dict[str, Callable[[], Scores]] = {
        "gscnn_lightning": lambda: boundary_fscore(*pair, _CLASSES, radii)[0].numpy(),
        "SciPy, distance map per class": lambda: fscore_by_distance_maps(preds, target, radii),
    }
    iou: dict[str, Callable[[], Scores]] = {
        "gscnn_lightning": lambda: boundary_iou(*pair, _CLASSES, distance).numpy(),
        "SciPy, erosion per class": lambda: biou_by_erosion(preds, target, distance),
    }
    size = f"{target.shape[0]}x{target.shape[1]}, {len(np.unique(target[target != _VOID]))} classes present"
    for title, functions in (
        (f"boundary F at {', '.join(map(str, tolerances))} px ({size})", fscore),
        (f"Boundary IoU at {distance} px ({size})", iou),
    ):
        check_equal({name: function() for name, function in functions.items()})
        print_table(title, time_side_by_side(functions, repeats), baseline="gscnn_lightning")
    say(f"values equal to 1e-12; {threads} thread{'s' if threads > 1 else ''}")


def displaced(labels: Labels, reach: float, seed: int = 0) -> Labels:
    """A prediction that is wrong as networks are: boundaries displaced by a smooth random field.

    Args:
        labels: (H, W) uint8 train ids.
        reach: standard deviation of the displacement in pixels.
        seed: of the field.

    Returns:
        (H, W) uint8, class 0 where void would be predicted.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    dx, dy = (cv2.GaussianBlur(rng.standard_normal(labels.shape).astype(np.float32), (0, 0), 8) for _ in range(2))
    shifted_x, shifted_y = x + reach * dx / dx.std(), y + reach * dy / dy.std()
    moved = cv2.remap(labels, shifted_x, shifted_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.where(moved == _VOID, 0, moved).astype(np.uint8)


def fscore_by_distance_maps(preds: Labels, target: Labels, radii: list[float]) -> Scores:
    """Boundary F-score with SciPy as one would write it down: a distance map per class and map.

    Args:
        preds: (H, W) predicted train ids.
        target: (H, W) true train ids, 255 for void.
        radii: T tolerances in pixels.

    Returns:
        (T, 19), NaN for a class without boundary.
    """
    from scipy.ndimage import distance_transform_edt

    scores = np.full((len(radii), _CLASSES), np.nan)
    for index in range(_CLASSES):
        a, b = (_boundary((labels == index) & (target != _VOID)) for labels in (preds, target))
        if a.any() and b.any():
            to_a, to_b = distance_transform_edt(~a), distance_transform_edt(~b)
            for row, radius in enumerate(radii):
                precision, recall = (to_b[a] <= radius).mean(), (to_a[b] <= radius).mean()
                total = precision + recall
                scores[row, index] = 2 * precision * recall / total if total else 0.0
        elif a.any() or b.any():
            scores[:, index] = 0.0
    return scores


def biou_by_erosion(preds: Labels, target: Labels, distance: int) -> Scores:
    """Boundary IoU with SciPy as its authors define it: repeated erosion with a 3x3 square per class and map.

    Args:
        preds: (H, W) predicted train ids.
        target: (H, W) true train ids, 255 for void.
        distance: width of the bands in pixels.

    Returns:
        (19,), NaN for a class in neither map.
    """
    from scipy.ndimage import binary_erosion

    scores = np.full(_CLASSES, np.nan)
    for index in range(_CLASSES):
        masks = [(labels == index) & (target != _VOID) for labels in (preds, target)]
        bands = [mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance) for mask in masks]
        union = np.count_nonzero(bands[0] | bands[1])
        if union:
            scores[index] = np.count_nonzero(bands[0] & bands[1]) / union
    return scores


def check_equal(scores: dict[str, Scores], tolerance: float = 1e-12) -> None:
    """Raise unless all formulations gave the same scores.

    Raises:
        AssertionError: two differ by more than ``tolerance``.
    """
    (first, expected), *others = scores.items()
    for name, values in others:
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=f"{name} against {first}")


def _boundary(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Differs from the right, lower or lower-right neighbour, the border repeated."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def _drawn_labels() -> Labels:
    from gscnn_lightning.data.scenes import ScenesDataset

    return ScenesDataset(1, size=(1024, 2048)).load(0)[1]


def _read_labels(path: Path) -> Labels:
    from gscnn_lightning.data.cityscapes import FROM_ID

    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint8:
        raise DataError(f"{path} is no 8-bit label map with one channel: give an official *_labelIds.png")
    return FROM_ID[raw]
