"""Training augmentation from plain numbers, as an albumentations pipeline."""

import os
from collections.abc import Callable
from typing import Any

# albumentations asks PyPI for a newer version while it is imported; training machines are often offline.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.class_tiles import TILE, Target
from gscnn_lightning.data.ranges import check_augmentation, check_crop

Array = npt.NDArray[Any]


def training_transform(
    crop_size: tuple[int, int] | None,
    scale: tuple[float, float] = (0.5, 2.0),
    class_uniform: float = 0.0,
    flip: float = 0.5,
    color_jitter: float = 0.25,
    blur: float = 0.5,
) -> A.Compose:
    """Random scale, crop, horizontal flip, colour and blur, as Gated-SCNN is trained (section 4.2 of the paper).

    Args:
        crop_size: height and width in pixels of what is cut out, None for whole frames at their own size.
        scale: smallest and largest factor by which the content is resized; not used without `crop_size`.
        class_uniform: share of crops centred on a class of the image, see `RandomScaleCrop`.
        flip: probability of a horizontal flip.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 for none; hue changes by up to a
            fifth of it in units of the colour circle.
        blur: probability of a Gaussian blur with a standard deviation of up to 1.5 pixels.

    Returns:
        A pipeline to call with `image` (uint8 RGB, (H, W, 3)) and `mask` (uint8, (H, W)), and optionally `target`, see
        `RandomScaleCrop`.

    Raises:
        ValueError: a number is out of range.
    """
    check_augmentation(crop_size, scale, class_uniform, flip, color_jitter, blur)
    steps: list[A.BasicTransform] = []
    if crop_size is not None:
        steps.append(RandomScaleCrop(crop_size, scale, class_uniform))
    if flip:
        steps.append(A.HorizontalFlip(p=flip))
    if color_jitter:
        around_one = (1 - color_jitter, 1 + color_jitter)
        hue = (-color_jitter / 5, color_jitter / 5)
        steps.append(A.ColorJitter(brightness=around_one, contrast=around_one, saturation=around_one, hue=hue, p=1.0))
    if blur:
        steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 1.5), p=blur))
    return A.Compose(steps)


class RandomScaleCrop(A.DualTransform):
    """Cut a window of random scale and place and resize it to one size.

    Equal to resizing the whole image by a factor drawn from `scale` and then cropping, but only the crop is resized.
    Where the window reaches over the image, the image is continued in grey and the mask as void.

    Args:
        size: height and width of the result in pixels.
        scale: range of the factor, drawn uniformly.
        class_uniform: probability that the window is centred (as far as the frame lets it) on a random pixel of a
            class drawn uniformly from those in the image, rather than placed uniformly. Helps rare classes. A call with
            a `target` (a `class_tiles.Target`) centres it on a random pixel of that class in that tile instead.

    Raises:
        ValueError: a size below 1 or an empty or negative range.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.MASK)
    GREY = (124, 116, 104)
    """Mean colour of ImageNet (and close to that of road scenes): about zero once the network has normalised it."""

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float] = (0.5, 2.0), class_uniform: float = 0.0
    ) -> None:
        super().__init__(p=1.0)
        check_crop(size, scale)
        self.size = tuple(size)
        self.scale = tuple(scale)
        self.class_uniform = class_uniform

    @property
    def targets_as_params(self) -> list[str]:
        """The mask decides where crops of `class_uniform` go."""
        return ["mask"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the window: top, left, height and width in source pixels."""
        factor = self.random_generator.uniform(*self.scale)
        window = [max(1, round(length / factor)) for length in self.size]
        center, reader = None, data.get("reader")
        height, width = params["shape"][:2]
        if (target := data.get("target")) is not None:
            bottom, right = min(target.top + TILE, height), min(target.left + TILE, width)
            tile = (
                data["mask"][target.top : bottom, target.left : right]
                if reader is None
                else reader.labels(target.top, target.left, bottom, right)
            )
            center = _target_pixel(tile, target, self.random_generator)
        elif self.random_generator.random() < self.class_uniform:
            mask = data["mask"] if reader is None else reader.labels(0, 0, height, width)
            center = _random_class_pixel(mask, self.random_generator)
        corner = []
        for axis, (length, full) in enumerate(zip(window, params["shape"][:2], strict=True)):
            # A window larger than the image lies anywhere around it, a smaller one anywhere inside.
            low, high = sorted((0, full - length))
            start = self.random_generator.integers(low, high + 1)
            corner.append(int(start) if center is None else int(np.clip(center[axis] - length // 2, low, high)))
        return {"window": (*corner, *window)}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Apply to image and mask, or to what a `windows.FrameWindows` called `reader` has in their place."""
        reader = kwargs.pop("reader", None)
        if reader is None:
            result: dict[str, Any] = super().apply_with_params(params, *args, **kwargs)
            return result
        window = params["window"]
        whole = (0, 0, *window[2:])
        image = self.apply(_filled(window, reader.shape, reader.image, self.GREY), whole)
        mask = self.apply_to_mask(_filled(window, reader.shape, reader.labels, IGNORE_INDEX), whole)
        return {**kwargs, "image": np.ascontiguousarray(image), "mask": np.ascontiguousarray(mask)}

    def apply(self, img: Array, window: tuple[int, int, int, int], **_: object) -> Array:
        """Crop and resize an image: bilinear, and averaging once it shrinks to less than half.

        Down to half the size bilinear weights leave no pixel out, if unequal ones, in a seventh of the time that
        averaging takes.
        """
        skips = window[2] > 2 * self.size[0]
        return self._resize(_cut(img, window, self.GREY), cv2.INTER_AREA if skips else cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: Array, window: tuple[int, int, int, int], **_: object) -> Array:
        """Crop and resize a mask; pixel centres decide, as for the image, so that the two stay aligned."""
        return self._resize(_cut(mask, window, IGNORE_INDEX), cv2.INTER_NEAREST_EXACT)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Arguments that albumentations shows and serialises."""
        return ("size", "scale", "class_uniform")

    def _resize(self, img: Array, interpolation: int) -> Array:
        if img.shape[:2] == self.size:
            return np.ascontiguousarray(img)
        return cv2.resize(img, self.size[::-1], interpolation=interpolation)


def _cut(img: Array, window: tuple[int, int, int, int], fill: int | tuple[int, ...]) -> Array:
    """The window of an image, filled where it reaches over the edge."""
    return _filled(window, img.shape, lambda top, left, bottom, right: img[top:bottom, left:right], fill)


def _filled(
    window: tuple[int, int, int, int],
    shape: tuple[int, ...],
    read: Callable[[int, int, int, int], Array],
    fill: int | tuple[int, ...],
) -> Array:
    """The part of a window that is inside of an image, as it is read, and what is outside."""
    top, left, height, width = window
    bottom, right = top + height, left + width
    inside = read(max(top, 0), max(left, 0), min(bottom, shape[0]), min(right, shape[1]))
    if inside.shape[:2] == (height, width):
        return inside
    margins = max(-top, 0), max(bottom - shape[0], 0), max(-left, 0), max(right - shape[1], 0)
    return cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=fill)


def _random_class_pixel(mask: Array, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a random pixel of a random class of the mask, None if everything is void."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    counts[IGNORE_INDEX] = 0
    classes = np.flatnonzero(counts)
    return _random_pixel(mask, rng.choice(classes), rng) if len(classes) else None


def _target_pixel(tile: Array, target: Target, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column in the frame of a random pixel of the target's class within its tile, None if it has gone."""
    pixel = _random_pixel(tile, target.label, rng)
    return None if pixel is None else (target.top + pixel[0], target.left + pixel[1])


def _random_pixel(mask: Array, label: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a random pixel with a label, None if there is none."""
    hits = mask == label
    # Row first, then column: the same distribution as listing all pixels, without the list.
    per_row = np.cumsum(cv2.reduce(hits.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S))
    if not per_row[-1]:
        return None
    row = int(np.searchsorted(per_row, rng.integers(per_row[-1]), side="right"))
    return row, int(rng.choice(np.flatnonzero(hits[row])))
