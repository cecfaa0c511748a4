"""Dual task regularizer (Takikawa et al., Gated-SCNN, ICCV 2019, section 3.4, eqs. 5 to 7).

On processors it is the operator of `dual_task_cpu`. Elsewhere it is a chain of torch operations, of which there have to
be few: on a GPU the time of small maps is that of starting kernels, and the time of large maps that of reading and
writing them once per kernel. So the steps that autograd would take apart have gradients of their own here, and nothing
asks the device for a number, which would wait for it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from gscnn_lightning.checks import can_look, check_floating, check_shape, check_whole, is_number
from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses.checks import Variant, check_labels, check_variant, full_precision
from gscnn_lightning.losses.dual_task_cpu import dual_task as dual_task_on_cpu
from gscnn_lightning.losses.image_weighted_ce import image_weighted_cross_entropy
from gscnn_lightning.losses.processes import stacked_over_processes

NON_ZERO = 1e-3
"""A potential above this counts as a boundary; a smoothed step is at least 0.014 within the filter's reach."""

# Differences are not halved, nor their norm divided by the square root of 2, map by map: the one map of weights that
# smoothed maps are divided by has this factor instead.
_SCALE = 2 * 2**0.5


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape, device and precision of a tensor: minus the logarithm of exponential numbers.

    Compiled, one number in millions is minus infinity, with which a class has the probability 0.
    """
    return torch.empty_like(like).exponential_().log_().neg_()


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """(B, H, W) labels as one map per class, in shape (B, K, H, W) and precision of ``like``; void is 0 in all."""
    classes = torch.arange(like.shape[1], device=labels.device).view(1, -1, 1, 1)
    return (labels.unsqueeze(1) == classes).to(like.dtype)


def triangle_filter(x: Tensor, radius: int = 4) -> Tensor:
    """Separable triangle filter [1 ... r, r + 1, r ... 1] / (r + 1)^2, mirrored at the frame with the edge repeated.

    Args:
        x: (B, C, H, W) float.
        radius: r in pixels, at least 0.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: an argument is not of this kind.
    """
    _check_maps("x", x)
    check_whole("radius", radius, 0)
    return _Smoothed.apply(x, *_mirrored_axes(x, radius), radius)


def _check_maps(name: str, x: Tensor) -> None:
    check_floating(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give (B, C, H, W)")


def _check_size(x: Tensor) -> None:
    if min(x.shape[2:]) < 2:
        raise ValueError(f"maps are {x.shape[2]}x{x.shape[3]} pixels: give at least 2x2")


def _mirrored_axes(x: Tensor, radius: int) -> list[Tensor]:
    """Rows and columns of maps that go on beyond the frame by a radius, which may be larger than they are."""
    axes = []
    for size in x.shape[2:]:
        i = torch.arange(-radius, size + radius, device=x.device) % (2 * size)
        axes.append(torch.minimum(i, 2 * size - 1 - i))
    return axes


class _Smoothed(Function):
    """The triangle filter; symmetric and mirrored at the frame, it is its own adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor, radius: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(rows, columns)
        ctx.radius = radius
        # The triangle is a box convolved with itself. Means are what no autocast rounds, and no tensor core.
        once = F.avg_pool2d(x[..., rows.unsqueeze(1), columns], radius + 1, stride=1)
        return F.avg_pool2d(once, radius + 1, stride=1)

    @staticmethod
    def backward(ctx: Any, by_smoothed: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return _Smoothed.apply(by_smoothed, *ctx.saved_tensors, ctx.radius), None, None, None


def spatial_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along width and height, one-sided at the frame, as ``numpy.gradient``.

    Args:
        x: (B, C, H, W) float, at least 2 pixels a side.

    Returns:
        d/dx and d/dy, each (B, C, H, W).

    Raises:
        ValueError: ``x`` is not of this kind.
    """
    _check_maps("x", x)
    _check_size(x)
    dx, dy = _Differences.apply(x)
    return dx / 2, dy / 2


class _Differences(Function):
    """Twice the central differences along width and height, one-sided at the frame."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        height, width = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        dx = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
        dy = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
        dx[..., :: width - 1].mul_(2)  # the first and the last column
        dy[..., :: height - 1, :].mul_(2)
        return dx, dy

    @staticmethod
    def backward(ctx: Any, by_dx: Tensor, by_dy: Tensor) -> Tensor:  # noqa: ANN401
        height, width = by_dx.shape[2:]
        across = F.pad(by_dx, (1, 1, 0, 0), mode="replicate")
        down = F.pad(by_dy, (0, 0, 1, 1), mode="replicate")
        # What is one-sided counts twice; the pixel of the frame is subtracted in it, as if from one beyond the frame.
        across[..., 1 : -1 : width - 1].mul_(2)
        across[..., :: width + 1].mul_(-2)
        down[..., 1 : -1 : height - 1, :].mul_(2)
        down[..., :: height + 1, :].mul_(-2)
        return (across[..., :-2] - across[..., 2:]) + (down[..., :-2, :] - down[..., 2:, :])


class _Length(Function):
    """Length of the vectors (dx, dy); its gradient is taken as 0 where it has none."""

    @staticmethod
    def forward(ctx: Any, dx: Tensor, dy: Tensor) -> Tensor:  # noqa: ANN401
        length = torch.hypot(dx, dy)
        ctx.save_for_backward(dx, dy, length)
        return length

    @staticmethod
    def backward(ctx: Any, by_length: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        dx, dy, length = ctx.saved_tensors
        # What is shorter than any potential that counts may not make the quotient overflow.
        quotient = by_length / length.clamp(min=torch.finfo(length.dtype).tiny ** 0.5)
        return quotient * dx, quotient * dy


def boundary_potential(x: Tensor, valid: Tensor | None = None, radius: int = 4) -> Tensor:
    """The potential zeta = 1/sqrt(2) * || grad(G * x) || of every class map (eq. 5).

    Args:
        x: (B, K, H, W) float, at least 2 pixels a side: class probabilities or one-hot labels.
        valid: (B, 1, H, W) bool; where False, ``x`` has no influence: G averages over valid pixels alone.
        radius: radius of the triangle filter G, in pixels.

    Returns:
        (B, K, H, W), at least 0.

    Raises:
        ValueError: an argument is not of this kind.
    """
    _check_maps("x", x)
    _check_size(x)
    check_whole("radius", radius, 0)
    if valid is not None:
        check_shape("valid", valid, (x.shape[0], 1, *x.shape[2:]))
        if valid.dtype != torch.bool:
            raise ValueError(f"valid has data type {valid.dtype}: give bool")
    return _potentials([x if valid is None else x.where(valid, 0)], valid, radius)[0]


def _potentials(maps: Sequence[Tensor], valid: Tensor | None, radius: int) -> list[Tensor]:
    """:func:`boundary_potential` of maps of one shape that are 0 where not valid; what they share is made once."""
    axes = _mirrored_axes(maps[0], radius)
    weight: Tensor | float = _SCALE
    if valid is not None:
        mask = valid.to(maps[0].dtype)
        weight = _Smoothed.apply(mask, *axes, radius).clamp(min=1e-6) * _SCALE
    return [_Length.apply(*_Differences.apply(_Smoothed.apply(x, *axes, radius) / weight)) for x in maps]


def dual_task_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    tau: float | None = None,
    radius: int = 4,
    hard: bool = False,
    noise: Tensor | None = None,
    variant: Variant = "paper",
    sync: bool = False,
) -> Tensor:
    """L_reg->: the L1 difference between predicted and true boundary potential over p+ (eq. 6).

    p+ are the pixels and classes where either potential is really non-zero. Two choices that the paper leaves open:
    potentials are compared class by class, and G is a triangle filter, whose support is finite, so that p+ is too.

    Args:
        logits: (B, K, H, W) float, at least 2 pixels a side.
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        ignore_index: label of void pixels; they contribute nothing, neither themselves nor through the smoothing.
        tau: temperature of the Gumbel softmax, above 0; by default 1, as in the paper, and 0.5 for "release".
        radius: radius of the smoothing filter, in pixels.
        hard: straight-through: one-hot forward, gradient of the soft sample (the paper's reading of argmax).
        noise: (B, K, H, W) Gumbel noise instead of a random draw; zeros make the loss deterministic.
        variant: "paper", or "release": neither smoothing nor differences, every pixel counts, void as class 0, as the
            published checkpoint was trained; ``radius`` and ``hard`` are not used then.
        sync: p+ is that of all processes, see `over_processes`; each draws its own noise. "release" divides by the
            maximum over the own images in any case.

    Returns:
        Scalar, at least 0; "paper": 0 with zero gradient if there is no boundary.

    Raises:
        ValueError: shapes or data types do not belong together, or a setting is out of range; on CPUs, also if a label
            is. Elsewhere a label that is no class counts as one that nobody predicts.
    """
    _check_settings(ignore_index, tau, radius, variant)
    labels = check_labels(logits, labels, ignore_index)
    log_probs = full_precision(logits).log_softmax(dim=1)
    return dual_task_of_log_probs(log_probs, labels, ignore_index, tau, radius, hard, noise, variant, sync)


def dual_task_of_log_probs(
    log_probs: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    tau: float | None = None,
    radius: int = 4,
    hard: bool = False,
    noise: Tensor | None = None,
    variant: Variant = "paper",
    sync: bool = False,
) -> Tensor:
    """:func:`dual_task_loss` of what a log-softmax of the logits gives, for whoever needs that besides.

    Args:
        log_probs: (B, K, H, W) float32 or float64, at least 2 pixels a side.
        labels: (B, H, W) int64.
        ignore_index: this and the other arguments are those of :func:`dual_task_loss`.
        tau: see there.
        radius: see there.
        hard: see there.
        noise: see there.
        variant: see there.
        sync: see there.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the maps are less than 2 pixels wide or high, so that nothing can be differentiated; or ``noise``
            has another shape.
    """
    _check_size(log_probs)
    if noise is not None:
        check_shape("noise", noise, log_probs.shape)
    if variant == "release":
        return _released_dual_task(log_probs, labels, ignore_index, tau or 0.5, noise)
    tau = tau or 1.0
    if log_probs.device.type == "cpu":
        differentiable = log_probs.requires_grad or (noise is not None and noise.requires_grad)
        wanted = differentiable and torch.is_grad_enabled()
        seed = torch.randint(2**63 - 1, ())
        loss, _, count = dual_task_on_cpu(
            log_probs, noise, seed, labels, ignore_index, tau, radius, hard, NON_ZERO, wanted
        )
        if sync:
            total, count = stacked_over_processes(loss * count, count)
            loss = total / count.clamp(min=1)
        return loss
    noise = gumbel_noise(log_probs) if noise is None else noise.to(log_probs.dtype)
    return plain_dual_task(log_probs, labels, noise, ignore_index, tau, radius, hard, sync)


def plain_dual_task(
    log_probs: Tensor,
    labels: Tensor,
    noise: Tensor,
    ignore_index: int,
    tau: float,
    radius: int,
    hard: bool,
    sync: bool = False,
) -> Tensor:
    """The paper's regularizer as a chain of differentiable operations, on any device; see `dual_task_of_log_probs`."""
    valid = (labels != ignore_index).unsqueeze(1)
    noisy = log_probs + noise
    soft = (noisy if tau == 1 else noisy / tau).softmax(dim=1)
    if hard:
        soft = one_hot(soft.argmax(dim=1), soft) - soft.detach() + soft
    truth = one_hot(labels.where(valid[:, 0], -1), soft)
    predicted, true = _potentials([soft.where(valid, 0), truth], valid, radius)
    positive = ((predicted > NON_ZERO) | (true > NON_ZERO)) & valid
    total, count = ((predicted - true).abs() * positive).sum(), positive.sum(dtype=predicted.dtype)
    if sync:
        total, count = stacked_over_processes(total, count)
    return total / count.clamp(min=1)


def _released_dual_task(logits: Tensor, labels: Tensor, ignore_index: int, tau: float, noise: Tensor | None) -> Tensor:
    valid = (labels != ignore_index).unsqueeze(1)
    noise = gumbel_noise(logits) if noise is None else noise.to(logits.dtype)
    soft = ((logits.where(valid, 0) + noise) / tau).softmax(dim=1)
    truth = one_hot(labels.where(valid[:, 0], 0), soft)
    return (_released_potential(soft) - _released_potential(truth)).abs().mean()


def _released_potential(x: Tensor) -> Tensor:
    """What the published program compares in place of the potential: the maps themselves, over their maximum."""
    magnitude = (2 * x.square() + 1e-6).sqrt()
    return magnitude / magnitude.max()


def boundary_attention_loss(
    logits: Tensor,
    labels: Tensor,
    boundary_prob: Tensor,
    threshold: float = 0.8,
    ignore_index: int = 255,
    variant: Variant = "paper",
    sync: bool = False,
) -> Tensor:
    """L_reg<-: cross-entropy on the pixels where the shape stream is sure of a boundary (eq. 7).

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        boundary_prob: (B, 1, H, W) boundary probability in [0, 1]; receives no gradient.
        threshold: a pixel counts if its probability is above; 0.8 in the paper.
        ignore_index: label of void pixels.
        variant: "paper" or "release", as in the segmentation loss.
        sync: over the images of all processes.

    Returns:
        Scalar, at least 0; 0 with zero gradient if no pixel is above the threshold.

    Raises:
        ValueError: shapes or data types do not belong together, or a setting is out of range; on CPUs, also if a label
            or a probability is.
    """
    check_variant(variant)
    check_threshold("threshold", threshold)
    labels = check_labels(logits, labels, ignore_index)
    check_floating("boundary_prob", boundary_prob)
    check_shape("boundary_prob", boundary_prob, (logits.shape[0], 1, *logits.shape[2:]))
    if can_look(boundary_prob):
        low, high = (float(value) for value in boundary_prob.detach().aminmax())
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"boundary_prob has values from {low:g} to {high:g}: give probabilities, logits after a sigmoid"
            )
    sure = confident_labels(labels, boundary_prob, threshold, ignore_index)
    return image_weighted_cross_entropy(logits, sure, ignore_index, variant, sync)


def confident_labels(labels: Tensor, boundary_prob: Tensor, threshold: float, ignore_index: int) -> Tensor:
    """Labels of the pixels that L_reg<- is about, void elsewhere.

    Args:
        labels: (B, H, W) integer.
        boundary_prob: (B, 1, H, W) boundary probability in [0, 1]; receives no gradient.
        threshold: a pixel counts if its probability is above.
        ignore_index: label of void pixels.

    Returns:
        (B, H, W), as ``labels``.
    """
    return labels.where(boundary_prob.detach()[:, 0] > threshold, ignore_index)


def check_threshold(name: str, threshold: float) -> None:
    """Raise unless a threshold is a probability.

    Raises:
        SettingError: it is not.
    """
    if not (is_number(threshold, 0) and threshold <= 1):
        raise SettingError(f"{name} is {threshold!r}: give a probability, 0 to 1")


def _check_settings(ignore_index: int, tau: float | None, radius: int, variant: str) -> None:
    check_variant(variant)
    check_whole("ignore_index", ignore_index)
    check_whole("radius", radius, 0)
    if tau is not None and not (is_number(tau) and tau > 0):
        raise SettingError(f"tau is {tau!r}: the Gumbel softmax needs a temperature above 0 (1 in the paper)")


class DualTaskLoss(nn.Module):
    """Module form of :func:`dual_task_loss`, with the same arguments."""

    def __init__(
        self,
        ignore_index: int = 255,
        tau: float | None = None,
        radius: int = 4,
        hard: bool = False,
        variant: Variant = "paper",
        sync: bool = False,
    ) -> None:
        super().__init__()
        _check_settings(ignore_index, tau, radius, variant)
        self.ignore_index = ignore_index
        self.tau = tau
        self.radius = radius
        self.hard = hard
        self.variant = variant
        self.sync = sync

    def forward(self, logits: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scalar loss of (B, K, H, W) logits and (B, H, W) labels; ``noise`` replaces the random draw."""
        log_probs = full_precision(logits).log_softmax(dim=1)
        return self.of_log_probs(log_probs, check_labels(logits, labels, self.ignore_index), noise)

    def of_log_probs(self, log_probs: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """The same of (B, K, H, W) log-probabilities and int64 labels."""
        return dual_task_of_log_probs(
            log_probs, labels, self.ignore_index, self.tau, self.radius, self.hard, noise, self.variant, self.sync
        )
