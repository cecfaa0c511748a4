"""Bootstrap over images, over blocks of neighbouring images, and over seeds: plain NumPy.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals); Carlstein, The
use of subseries values for estimating the variance of a general statistic from a stationary sequence, Annals of
Statistics 1986 (blocks); Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007 (images and seeds).
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gscnn_lightning.errors import SettingError

Weights = npt.NDArray[np.int64]
_NUMBER = re.compile(r"\d+")


def drives(names: Sequence[str]) -> list[str]:
    """What each frame was recorded in one go with, by its name.

    That is the name without its last number and what comes behind, so that ``frankfurt_000000_000294`` is of
    ``frankfurt_000000_``. Frames that would be alone so are put together by ever earlier numbers, then by their folder:
    ``lindau_000000_000019`` and ``lindau_000001_000019`` are of ``lindau_``.

    Args:
        names: of the frames; may contain "/".

    Example:
        >>> drives(["a/0001TP_0069", "a/0001TP_0070", "ulm_000_019", "ulm_001_019"])
        ['a/0001TP_', 'a/0001TP_', 'ulm_', 'ulm_']
    """
    numbers = [[match.start() for match in _NUMBER.finditer(name) if match.start() > name.rfind("/")] for name in names]
    found = [""] * len(names)
    left = list(range(len(names)))
    for back in range(1, 1 + max(map(len, numbers), default=0)):
        prefixes = {index: names[index][: numbers[index][-back]] for index in left if len(numbers[index]) >= back}
        count = Counter(prefixes.values())
        for index, prefix in prefixes.items():
            if count[prefix] > 1:
                found[index] = prefix
        left = [index for index in left if not found[index]]
    for index in left:
        found[index] = names[index].rpartition("/")[0] + "/"
    return found


def blocks_of(names: Sequence[str], length: int) -> npt.NDArray[np.int64]:
    """Number of the block of each frame: `length` neighbours of one drive, the last block of a drive perhaps shorter.

    Neighbours are found by their names, in which numbers count as numbers; see `drives`.

    Args:
        names: of the frames, in any order.
        length: frames of a block, 1 or more; 1 makes every frame its own.

    Returns:
        (N,) numbers from 0 on.

    Raises:
        SettingError: `length` is below 1, or no two blocks are left.

    Example:
        >>> blocks_of(["a_1", "a_2", "a_10", "b_1", "b_2"], 2).tolist()
        [0, 0, 1, 2, 2]
    """
    if length < 1:
        raise SettingError(f"block is {length}: give the number of neighbouring frames that are drawn together, from 1")
    if length == 1:
        return np.arange(len(names))
    order = sorted(range(len(names)), key=lambda index: _natural(names[index]))
    of_drive = drives(names)
    place: dict[str, int] = {}
    number: dict[tuple[str, int], int] = {}
    blocks = np.zeros(len(names), np.int64)
    for index in order:
        drive = of_drive[index]
        position = place[drive] = place.get(drive, -1) + 1
        blocks[index] = number.setdefault((drive, position // length), len(number))
    if len(number) < 2:
        raise SettingError(
            f"block is {length}, and the {len(names)} frames are one block: give fewer frames, as blocks are drawn"
        )
    return blocks


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if place % 2 else (0, 0, part) for place, part in enumerate(parts)]


def bootstrap_weights(blocks: npt.NDArray[np.integer], resamples: int, rng: np.random.Generator) -> Weights:
    """How often every frame is drawn when as many blocks as there are are drawn with replacement.

    Args:
        blocks: (N,) number of the block of each frame, 0 ... B-1, as `blocks_of` gives it.
        resamples: number of bootstrap samples R.
        rng: random numbers.

    Returns:
        (R, N) counts.

    Example:
        >>> weights = bootstrap_weights(np.array([0, 0, 1]), 4, np.random.default_rng(0))
        >>> bool((weights[:, 0] == weights[:, 1]).all()), (weights[:, 1] + weights[:, 2]).tolist()
        (True, [2, 2, 2, 2])
    """
    number = int(blocks.max()) + 1 if len(blocks) else 0
    drawn = rng.multinomial(number, np.full(number, 1 / max(number, 1)), resamples)
    return drawn[:, blocks]


def percentile_interval(values: npt.NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """Ends of the central interval of bootstrap samples, NaN left out; NaN if there is nothing else.

    Args:
        values: (R,) samples.
        level: share of the samples that lies within.

    Example:
        >>> percentile_interval(np.arange(101.0), 0.5)
        (25.0, 75.0)
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
