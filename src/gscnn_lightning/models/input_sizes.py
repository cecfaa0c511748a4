"""Which image sizes a feature extractor takes, found out by trying; images padded to them, and maps cut back."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

SMALLEST = 32
"""Height and width in pixels from which on the network takes images."""


class InputSizes(NamedTuple):
    """Heights and widths that a feature extractor takes.

    Attributes:
        multiple: they are multiples of this number of pixels.
        smallest: and have at least this many.
    """

    multiple: int = 1
    smallest: int = SMALLEST

    def fitting(self, side: int) -> int:
        """The smallest height or width that fits and is not below ``side``."""
        # Not by way of negative numbers, which exported programs round towards zero.
        return (max(side, self.smallest) + self.multiple - 1) // self.multiple * self.multiple


def find_input_sizes(takes: Callable[[int, int], bool], native: int, stride: int = 32) -> InputSizes | None:
    """The most general rule of sizes under which a feature extractor works.

    Convolutions take any size, or, without padding, any from some size on. Patches, and maps that are added after
    being scaled up, need multiples of a power of two; attention in windows of a fixed size needs multiples of the size
    that the family was made for, or of a part of it.

    Args:
        takes: tells whether the extractor takes an image of a height and width in pixels.
        native: height and width that the family was made for.
        stride: stride of its last map, such as the size of its patches, which may be 14.

    Returns:
        The rule, or None if there is none that images of any size could be padded to.
    """
    multiples = dict.fromkeys((32, 64, stride))
    guesses = (InputSizes(), *(InputSizes(n, n) for n in multiples), InputSizes(1, 128), InputSizes(native, native))
    rule = next((guess for guess in guesses if _holds(guess, takes)), None)
    if rule is None or rule == InputSizes():
        return rule
    for factor in (2, 3, 5, 7):
        while rule.multiple % factor == 0 and _holds(smaller := rule._replace(multiple=rule.multiple // factor), takes):
            rule = smaller
    low, high = SMALLEST // rule.multiple, rule.smallest // rule.multiple
    while low < high:
        middle = (low + high) // 2
        if _holds(rule._replace(smallest=middle * rule.multiple), takes):
            high = middle
        else:
            low = middle + 1
    return rule._replace(smallest=max(SMALLEST, high * rule.multiple))


def _holds(rule: InputSizes, takes: Callable[[int, int], bool]) -> bool:
    return all(takes(height, width) for height, width in _examples(rule))


def _examples(rule: InputSizes) -> Iterator[tuple[int, int]]:
    """Sizes that obey a rule, not square.

    Those of small multiples become odd numbers of places in all maps, whether these are rounded up or down.
    """
    first = rule.fitting(SMALLEST)
    steps = ((0, 31), (1, 27), (29, 5)) if rule.multiple < 8 else ((0, 1), (2, 1)) if rule.multiple < 128 else ((0, 1),)
    for height, width in steps:
        yield first + height * rule.multiple, first + width * rule.multiple


def pad(image: Tensor, sizes: InputSizes) -> Tensor:
    """An image with its last row and column repeated until its size fits; one that fits as it is."""
    height, width = image.shape[-2:]
    below, right = sizes.fitting(height) - height, sizes.fitting(width) - width
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def crop(maps: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """The places of a map that see something of the image before it was padded.

    Args:
        maps: (B, C, h, w), of the padded image.
        size: height and width of the image.
        padded: height and width of the padded image.
    """
    height, width = (
        (n * side + whole - 1) // whole for n, side, whole in zip(maps.shape[-2:], size, padded, strict=True)
    )
    return maps[..., :height, :width]
