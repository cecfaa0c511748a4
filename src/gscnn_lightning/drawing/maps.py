"""Labels, boundaries and gates as pictures: plain functions on arrays.

Pictures are (H, W, 3) uint8 RGB arrays throughout.
"""

from collections.abc import Sequence

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


def colorize_labels(labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> Picture:
    """Label map in class colours; whatever is no class, such as void, is black.

    Args:
        labels: (H, W) integer train ids.
        class_colors: one RGB colour (0 to 255) per class.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> import numpy as np
        >>> colorize_labels(np.array([[0, 255]]), [(128, 64, 128)]).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    table = np.zeros((max(256, len(class_colors) + 1), 3), np.uint8)
    table[: len(class_colors)] = np.asarray(class_colors, np.uint8).reshape(-1, 3)
    if labels.dtype == np.uint8 and labels.size:  # several times as fast
        grey = labels.astype(np.uint8, copy=False)
        return cv2.LUT(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), table[None, :256]).astype(np.uint8, copy=False)
    return table[np.where(_is_class(labels, class_colors), labels, len(class_colors))]


def overlay_labels(photo: Picture, labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> Picture:
    """Photo tinted with class colours, half and half; the plain photo where there is no class.

    Args:
        photo: (H, W, 3) uint8.
        labels: (H, W) integer train ids.
        class_colors: one RGB colour (0 to 255) per class.

    Returns:
        (H, W, 3) uint8.
    """
    tinted = cv2.addWeighted(photo, 0.5, colorize_labels(labels, class_colors), 0.5, 0).astype(np.uint8, copy=False)
    no_class = ~_is_class(labels, class_colors)
    tinted[no_class] = photo[no_class]
    return tinted


def overlay_boundaries(photo: Picture, boundary: npt.NDArray[np.generic], color: Color = (255, 235, 60)) -> Picture:
    """Photo with boundary pixels painted over it.

    Args:
        photo: (H, W, 3) uint8.
        boundary: (H, W) bool, or any type of which non-zero means boundary.
        color: RGB colour (0 to 255) of the boundary.

    Returns:
        (H, W, 3) uint8.
    """
    painted = photo.copy()
    painted[boundary != 0] = color
    return painted


def heat_map(
    values: npt.NDArray[np.generic], low: float = 0.0, high: float = 1.0, colormap: str = "inferno"
) -> Picture:
    """Map of numbers in a perceptually uniform colour map, values outside the range clipped to its ends.

    Args:
        values: (H, W) numbers, such as boundary probabilities or gate values.
        low: value drawn in the darkest colour.
        high: value drawn in the brightest colour, > ``low``.
        colormap: name of a matplotlib colour map.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if ``high`` is not above ``low``.
    """
    if high <= low:
        raise ValueError(f"the range is {low} to {high}; high must be above low")
    share = (np.asarray(values, np.float32) - low) / (high - low)
    return mpl.colormaps[colormap](np.clip(share, 0, 1), bytes=True)[..., :3]


def gate_map(gate: npt.NDArray[np.floating], size: tuple[int, int]) -> tuple[Picture, tuple[float, float]]:
    """Attention map of a gated convolution in false colours, stretched to its own range, as gates rarely use all.

    Args:
        gate: (h, w) numbers in [0, 1].
        size: height and width of the picture in pixels.

    Returns:
        (H, W, 3) uint8, and the lowest and highest value of the gate.
    """
    low, high = float(gate.min()), float(gate.max())
    # Nearly constant gates stay flat: without a least range their rounding noise would look like structure.
    stretched = heat_map(gate, low, max(high, low + 0.05), colormap="viridis")
    return cv2.resize(stretched, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8), (low, high)


def _is_class(labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> npt.NDArray[np.bool_]:
    return (labels >= 0) & (labels < len(class_colors))
