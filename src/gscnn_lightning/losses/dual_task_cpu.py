"""Dual task regularizer and its gradient on processors: one operator, map by map in memory that stays in the caches.

The formula is that of :func:`gscnn_lightning.losses.dual_task.dual_task_loss`, which computes it from plain operations
on any other device. Here the gradient is made beside the value, as both need the same smoothed maps, and the filter is
OpenCV's: symmetric and mirrored at the frame, it is its own adjoint.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Map = npt.NDArray[np.floating]
_Map = Callable[..., Iterable[Any]]

# Differences are not halved, nor the norm divided by the square root of 2: potentials are this much too large.
_SCALE = 2 * 2**0.5
# Pixels whose intermediate values are computed at once: half a dozen of such pieces fit the second-level cache.
_PIECE = 1 << 16
# Small maps are taken several at once, up to so many pixels: calls take longer than what they compute otherwise.
_GROUP = 1 << 18
# At least so many groups, for as many threads: sums must not depend on the number of these.
_SHARES = 4
# Pixels of images below which threads wait for each other longer than they help.
_LEAST_IMAGE = 1 << 15


@torch.library.custom_op("gscnn_lightning::dual_task", mutates_args=(), device_types="cpu")
def dual_task(
    log_probs: Tensor,
    noise: Tensor | None,
    seed: Tensor,
    labels: Tensor,
    ignore_index: int,
    tau: float,
    radius: int,
    hard: bool,
    non_zero: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's dual task regularizer and its gradient.

    Args:
        log_probs: (B, K, H, W) float32 or float64, logarithms of class probabilities.
        noise: (B, K, H, W) Gumbel noise; None for a draw by ``seed``.
        seed: int64 scalar.
        labels: (B, H, W) int64.
        ignore_index: label of void pixels.
        tau: temperature of the Gumbel softmax.
        radius: of the triangle filter, in pixels.
        hard: straight-through.
        non_zero: a potential above this counts as a boundary.
        with_gradient: False leaves the gradient out.

    Returns:
        The loss, a scalar; its gradient by ``log_probs``, or an empty tensor; and over how many pixels it is a mean.
    """
    setting = _Setting(_triangle(radius, log_probs), tau, hard, non_zero * _SCALE)
    logs = log_probs.detach().contiguous().numpy()
    given = None if noise is None else noise.detach().to(log_probs.dtype).contiguous().numpy()
    # The fewer bytes the faster a class is found, and any number that is no class must stay none.
    small = labels.clamp(-1, log_probs.shape[1]).to(torch.int8 if log_probs.shape[1] < 127 else torch.int32)
    gradient = np.empty_like(logs) if with_gradient else np.empty(0, logs.dtype)
    truths, valid = small.numpy(), (labels != ignore_index).numpy()

    def compare(index: int, each: _Map) -> tuple[float, int]:
        out = gradient[index] if with_gradient else None
        draw = _Draw((int(seed), index)) if given is None else given[index]
        return _one_image(logs[index], draw, truths[index], valid[index], setting, out, each)

    pixels = truths[0].size if len(truths) else 0
    # Whatever is shared out, sums have the same order.
    if len(truths) >= torch.get_num_threads() and pixels >= _LEAST_IMAGE:
        with _parallel() as each:
            found = list(each(partial(compare, each=map), range(len(truths))))
    elif pixels >= 2 * _LEAST_IMAGE:
        with _parallel() as each:
            found = [compare(index, each) for index in range(len(truths))]
    else:
        found = [compare(index, map) for index in range(len(truths))]
    total, count = sum(total for total, _ in found), sum(count for _, count in found)
    scale = 1 / (_SCALE * max(count, 1))
    gradient *= scale / tau
    return log_probs.new_tensor(total * scale), torch.from_numpy(gradient), log_probs.new_tensor(count)


@dual_task.register_fake
def _(
    log_probs: Tensor,
    noise: Tensor | None,
    seed: Tensor,
    labels: Tensor,
    ignore_index: int,
    tau: float,
    radius: int,
    hard: bool,
    non_zero: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = log_probs.shape if with_gradient else (0,)
    return log_probs.new_empty(()), log_probs.new_empty(shape), log_probs.new_empty(())


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(
    ctx: Any,  # noqa: ANN401
    by_loss: Tensor | None,
    by_gradient: Tensor | None,
    by_count: Tensor | None,
) -> tuple[Tensor | None, ...]:
    if by_gradient is not None:
        raise NotImplementedError("the dual task regularizer has no second derivative on processors")
    (gradient,) = ctx.saved_tensors
    # Noise is added to the logarithms, so its gradient is theirs.
    shared = None if by_loss is None else by_loss * gradient
    return (shared, shared if ctx.needs_input_grad[1] else None, *(None,) * 8)


dual_task.register_autograd(_backward, setup_context=_setup_context)


@contextmanager
def _parallel() -> Iterator[_Map]:
    """`map` on as many threads as torch uses; NumPy and OpenCV let go of the interpreter's lock."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield map
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map


@dataclass(frozen=True)
class _Setting:
    """What is the same for all images: the filter's column, temperature, and the threshold on scaled potentials."""

    kernel: Map
    tau: float
    hard: bool
    threshold: float


def _triangle(radius: int, like: Tensor) -> Map:
    """Column of the triangle filter; its sum is 1."""
    distance = np.abs(np.arange(-radius, radius + 1))
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    return ((radius + 1 - distance) / (radius + 1) ** 2).astype(dtype)


def _one_image(
    log_probs: Map,
    noise: "_Draw | Map",
    labels: npt.NDArray[np.integer],
    valid: npt.NDArray[np.bool_],
    setting: _Setting,
    gradient: Map | None,
    each: _Map,
) -> tuple[float, int]:
    """Sum of the differences of scaled potentials and the number of pixels in it; fills the gradient of the sum."""
    num_classes, height, width = log_probs.shape
    soft = np.empty_like(log_probs)
    bands = _bands(height, 4 * _PIECE // (num_classes * width))
    list(each(partial(_gumbel_softmax, log_probs, noise, setting.tau, valid, soft), bands))
    if setting.hard:
        sample = ((soft.argmax(0) == np.arange(num_classes)[:, None, None]) & valid).astype(soft.dtype)
    else:
        sample = soft
    image = _Image(labels, None if valid.all() else valid, setting)
    size = min(-(-num_classes // _SHARES), max(1, _GROUP // (height * width)))
    groups = [slice(start, min(start + size, num_classes)) for start in range(0, num_classes, size)]
    sums = list(each(partial(image.compare, sample, gradient), groups))
    if gradient is not None:
        list(each(partial(_softmax_backward, soft, gradient), bands))
    return sum(total for total, _ in sums), sum(count for _, count in sums)


def _bands(height: int, rows: int) -> list[slice]:
    """All rows, a few at once."""
    rows = max(rows, 1)
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


class _Draw:
    """Logarithms of uniform numbers, the same for one seed however many threads ask for them."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.seed = seed

    def __call__(self, rows: slice, like: Map) -> Map:
        """Numbers below 0 for all classes of some rows."""
        bits = np.random.Generator(np.random.SFC64((*self.seed, rows.start)))
        integer, mantissa = (np.uint32, 23) if like.dtype == np.float32 else (np.uint64, 52)
        size = like.size * like.itemsize
        raw: Any = (
            bits.integers(2**64, size=-(-size // 8), dtype=np.uint64).view(integer)[: like.size].reshape(like.shape)
        )
        # The random bits become the mantissa of a number from 1 to 2; half a step keeps it from both ends.
        raw >>= like.itemsize * 8 - mantissa
        raw |= np.ones(1, like.dtype).view(integer)
        uniform = raw.view(like.dtype)
        uniform -= 1 - 0.5 ** (mantissa + 1)
        return np.log(uniform, out=uniform)


def _gumbel_softmax(
    log_probs: Map,
    noise: _Draw | Map,
    tau: float,
    valid: npt.NDArray[np.bool_],
    out: Map,
    rows: slice,
) -> None:
    """softmax((log p + noise) / tau) over the classes; 0 where not valid.

    Gumbel noise is minus the logarithm of E, an exponential number, and E minus that of a uniform one. So at tau 1 the
    sample is p / E over its sum, and neither the second logarithm nor the sign of E is needed.
    """
    soft = out[:, rows]
    if isinstance(noise, _Draw) and tau == 1:
        np.exp(log_probs[:, rows], out=soft)
        soft /= noise(rows, soft)
    else:
        gumbel = -np.log(-noise(rows, soft)) if isinstance(noise, _Draw) else noise[:, rows]
        np.add(log_probs[:, rows], gumbel, out=soft)
        soft /= tau
        soft -= soft.max(0)
        np.exp(soft, out=soft)
    soft *= valid[rows] / soft.sum(0)


def _softmax_backward(soft: Map, gradient: Map, rows: slice) -> None:
    """From the gradient by probabilities to that by logits, in place."""
    probs, by_probs = soft[:, rows], gradient[:, rows]
    by_probs *= probs
    by_probs -= probs * by_probs.sum(0)


class _Image:
    """Labels of one image, with which the maps of its classes are compared one by one."""

    def __init__(self, labels: npt.NDArray[np.integer], valid: npt.NDArray[np.bool_] | None, setting: _Setting) -> None:
        self.labels = labels
        self.valid = valid
        self.setting = setting
        self.near_void = slice(0, 0)
        if valid is not None:
            self.mask = valid.astype(setting.kernel.dtype)
            self.inverse_weight = 1 / np.maximum(self._filter(self.mask), 1e-6)
            # Void is often a strip, such as a bonnet at the bottom: rows out of its reach need none of this.
            rows, reach = np.flatnonzero(~valid.all(axis=1)), len(setting.kernel) // 2
            self.near_void = slice(max(0, rows[0] - reach), min(len(valid), rows[-1] + reach + 1))

    def compare(self, sample: Map, gradient: Map | None, classes: slice) -> tuple[float, int]:
        """Sum over p+ of the differences of some classes, and the size of p+.

        Args:
            sample: (K, H, W) sampled probabilities.
            gradient: (K, H, W), filled with the gradient by them; None if that is not wanted.
            classes: which ones; all rows of a map are taken at once where there are several.
        """
        smooth = np.empty_like(sample[classes])
        for source, target in zip(sample[classes], smooth, strict=True):
            self._filter(source, target)
        self._weigh(smooth)
        true = [self._true_potential(label) for label in range(classes.start, classes.stop)]
        number, height, width = smooth.shape
        # Where the square of a difference underflows, so does its share of the gradient.
        tiny = np.finfo(smooth.dtype).tiny ** 0.5
        across, down = np.empty_like(smooth), np.empty_like(smooth)
        total, count = 0.0, 0
        for rows in _bands(height, height if number > 1 else _PIECE // width):
            dx, dy = across[:, rows], down[:, rows]
            _differences(smooth, rows, dx, dy)
            potential = _norm(dx, dy)
            # Factors of 0 and 1 in place of booleans, which NumPy would convert.
            flat = cv2.threshold(potential.reshape(-1, width), self.setting.threshold, 1.0, cv2.THRESH_BINARY)[1]
            positive = flat.reshape(potential.shape)
            # Outside a rectangle around each class its true potential is zero.
            places = [(index, *found) for index, one in enumerate(true) if (found := one.within(rows)) is not None]
            for index, here, there in places:
                highest = np.maximum(potential[index][here], there)
                np.greater(highest, self.setting.threshold, out=positive[index][here])
            first, last = max(rows.start, self.near_void.start), min(rows.stop, self.near_void.stop)
            if first < last:
                positive[:, first - rows.start : last - rows.start] *= self.mask[first:last]
            count += cv2.countNonZero(flat)
            difference = potential * positive
            signed = [(potential[index][here] - there) * positive[index][here] for index, here, there in places]
            for (index, here, _), inside in zip(places, signed, strict=True):
                np.abs(inside, out=difference[index][here])
            total += float(difference.sum())
            if gradient is not None:
                for (index, here, _), inside in zip(places, signed, strict=True):
                    np.sign(inside, out=positive[index][here])
                positive /= np.maximum(potential, tiny, out=potential)
                dx *= positive
                dy *= positive
        if gradient is not None:
            # The maps of the forward pass are free by now.
            back = _differences_backward(across, down, smooth)
            self._weigh(back)
            for source, target in zip(back, gradient[classes], strict=True):
                self._filter(source, target)
        return total, count

    def _true_potential(self, label: int) -> "_Rectangle":
        """Scaled potential of a class in the labels, where it is not zero."""
        mask = self.labels == label
        if self.valid is not None:
            mask &= self.valid
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        if not width:
            return _Rectangle(np.zeros((0, 0), self.setting.kernel.dtype), 0, 0)
        # Far enough that the filter meets nothing but zeros where the rectangle is mirrored in place of the frame.
        reach = len(self.setting.kernel) + 1
        top, bottom = max(0, top - reach), min(mask.shape[0], top + height + reach)
        left, right = max(0, left - reach), min(mask.shape[1], left + width + reach)
        here = (slice(top, bottom), slice(left, right))
        smooth = self._filter(mask[here].astype(self.setting.kernel.dtype))[None]
        if self.valid is not None:
            smooth *= self.inverse_weight[here]
        potential = np.empty_like(smooth)
        for rows in _bands(smooth.shape[1], _PIECE // smooth.shape[2]):
            dx, dy = np.empty_like(smooth[:, rows]), np.empty_like(smooth[:, rows])
            _differences(smooth, rows, dx, dy)
            _norm(dx, dy, out=potential[:, rows])
        return _Rectangle(potential[0], top, left)

    def _weigh(self, maps: Map) -> None:
        """From sums over valid pixels to means, in place; the weights of the filter add up to 1 away from void."""
        if self.valid is not None:
            maps[:, self.near_void] *= self.inverse_weight[self.near_void]

    def _filter(self, x: npt.NDArray[Any], out: Map | None = None) -> Map:
        """Triangle filter, mirrored at the frame with the edge repeated."""
        kernel = self.setting.kernel
        depth = cv2.CV_64F if kernel.dtype == np.float64 else cv2.CV_32F
        return cv2.sepFilter2D(x, depth, kernel, kernel, out, borderType=cv2.BORDER_REFLECT)


@dataclass(frozen=True)
class _Rectangle:
    """Part of a map outside of which it is zero, and the place of its corner."""

    values: Map
    top: int
    left: int

    def within(self, rows: slice) -> tuple[tuple[slice, slice], Map] | None:
        """Where the rectangle lies in a band of rows, and its values there; None if it does not."""
        height, width = self.values.shape
        first, last = max(rows.start, self.top), min(rows.stop, self.top + height)
        if first >= last:
            return None
        here = (slice(first - rows.start, last - rows.start), slice(self.left, self.left + width))
        return here, self.values[first - self.top : last - self.top]


def _differences(x: Map, rows: slice, dx: Map, dy: Map) -> None:
    """Twice the central differences of some rows of maps (n, H, W), one-sided at the frame, along width and height.

    Either all rows, or those of a single map: only these are in one piece.
    """
    here, height = x[:, rows], x.shape[1]
    # As one long row, which is several times faster; what this gives at the sides is replaced.
    flat = here.reshape(-1)
    np.subtract(flat[2:], flat[:-2], out=dx.reshape(-1)[1:-1])
    dx[..., 0] = 2 * (here[..., 1] - here[..., 0])
    dx[..., -1] = 2 * (here[..., -1] - here[..., -2])
    first, last = max(rows.start, 1), min(rows.stop, height - 1)
    inner = dy[:, first - rows.start : last - rows.start]
    np.subtract(x[:, first + 1 : last + 1], x[:, first - 1 : last - 1], out=inner)
    if rows.start == 0:
        dy[:, 0] = 2 * (x[:, 1] - x[:, 0])
    if rows.stop == height:
        dy[:, -1] = 2 * (x[:, -1] - x[:, -2])


def _norm(dx: Map, dy: Map, out: Map | None = None) -> Map:
    """Length of the vectors; OpenCV's is faster and rounds otherwise where an array begins elsewhere in memory."""
    out = np.multiply(dx, dx, out=out)
    out += dy * dy
    return np.sqrt(out, out=out)


def _differences_backward(across: Map, down: Map, out: Map) -> Map:
    """Adjoint of `_differences`: what a change of every pixel adds to the weighted sums of its differences."""
    for end in (0, -1):
        across[..., end] *= 2
        down[:, end] *= 2
    number, height, width = out.shape
    for rows in _bands(height, height if number > 1 else _PIECE // width):
        here, part = across[:, rows], out[:, rows]
        flat = here.reshape(-1)
        np.subtract(flat[:-2], flat[2:], out=part.reshape(-1)[1:-1])
        part[..., 0] = -here[..., 0] - here[..., 1]
        part[..., -1] = here[..., -2] + here[..., -1]
        first, last = max(rows.start, 1), min(rows.stop, height - 1)
        inner = part[:, first - rows.start : last - rows.start]
        inner += down[:, first - 1 : last - 1]
        inner -= down[:, first + 1 : last + 1]
    out[:, 0] -= down[:, 0] + down[:, 1]
    out[:, -1] += down[:, -2] + down[:, -1]
    return out
