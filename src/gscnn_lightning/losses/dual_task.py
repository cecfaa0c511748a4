"""Dual task regularizer (Takikawa et al., Gated-SCNN, ICCV 2019, section 3.4, eqs. 5 to 7)."""

import torch
from torch import Tensor, nn

from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses.checks import Variant, check_labels, full_precision
from gscnn_lightning.losses.dual_task_cpu import dual_task as dual_task_on_cpu
from gscnn_lightning.losses.image_weighted_ce import image_weighted_cross_entropy

NON_ZERO = 1e-3
"""A potential above this counts as a boundary; a smoothed step is at least 0.014 within the filter's reach."""


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape, device and precision of a tensor."""
    return -torch.rand_like(like).clamp(min=1e-10).log().neg().log()


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
    """
    return _triangle_along(_triangle_along(x, radius, 3), radius, 2)


def _triangle_along(x: Tensor, radius: int, dim: int) -> Tensor:
    """The filter along one axis: a weighted sum of shifted copies, which no autocast rounds."""
    n = x.shape[dim]
    i = torch.arange(-radius, n + radius, device=x.device) % (2 * n)
    padded = x.index_select(dim, torch.where(i < n, i, 2 * n - 1 - i))
    total = padded.narrow(dim, radius, n) * (radius + 1)
    for distance in range(1, radius + 1):
        pair = padded.narrow(dim, radius - distance, n) + padded.narrow(dim, radius + distance, n)
        total = total.add(pair, alpha=radius + 1 - distance)
    return total / (radius + 1) ** 2


def spatial_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along width and height, one-sided at the frame, as ``numpy.gradient``.

    Args:
        x: (B, C, H, W), at least 2 pixels a side.

    Returns:
        d/dx and d/dy, each (B, C, H, W).
    """
    return _difference(x, 3), _difference(x, 2)


def _difference(x: Tensor, dim: int) -> Tensor:
    n = x.shape[dim]
    first = x.narrow(dim, 1, 1) - x.narrow(dim, 0, 1)
    last = x.narrow(dim, n - 1, 1) - x.narrow(dim, n - 2, 1)
    inner = (x.narrow(dim, 2, n - 2) - x.narrow(dim, 0, n - 2)) / 2
    return torch.cat([first, inner, last], dim)


def boundary_potential(x: Tensor, valid: Tensor | None = None, radius: int = 4) -> Tensor:
    """The potential zeta = 1/sqrt(2) * || grad(G * x) || of every class map (eq. 5).

    Args:
        x: (B, K, H, W) class probabilities or one-hot labels.
        valid: (B, 1, H, W) bool; where False, ``x`` has no influence: G averages over valid pixels alone.
        radius: radius of the triangle filter G, in pixels.

    Returns:
        (B, K, H, W), at least 0.
    """
    if valid is not None:
        mask = valid.to(x.dtype)
        x = triangle_filter(x.where(valid, 0), radius) / triangle_filter(mask, radius).clamp(min=1e-6)
    else:
        x = triangle_filter(x, radius)
    dx, dy = spatial_gradient(x)
    squared = (dx.square() + dy.square()) / 2
    # The square root has no gradient at 0; there it is taken as 0.
    positive = squared > 0
    return squared.where(positive, 1).sqrt() * positive


def dual_task_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    tau: float | None = None,
    radius: int = 4,
    hard: bool = False,
    noise: Tensor | None = None,
    variant: Variant = "paper",
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

    Returns:
        Scalar, at least 0; "paper": 0 with zero gradient if there is no boundary.

    Raises:
        ValueError: the shapes do not belong together.
    """
    labels = check_labels(logits, labels)
    log_probs = full_precision(logits).log_softmax(dim=1)
    return dual_task_of_log_probs(log_probs, labels, ignore_index, tau, radius, hard, noise, variant)


def dual_task_of_log_probs(
    log_probs: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    tau: float | None = None,
    radius: int = 4,
    hard: bool = False,
    noise: Tensor | None = None,
    variant: Variant = "paper",
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

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the maps are less than 2 pixels wide or high, so that nothing can be differentiated.
    """
    if min(log_probs.shape[2:]) < 2:
        raise ValueError(f"maps are {log_probs.shape[2]}x{log_probs.shape[3]} pixels: give at least 2x2")
    if variant == "release":
        return _released_dual_task(log_probs, labels, ignore_index, tau or 0.5, noise)
    tau = tau or 1.0
    if log_probs.device.type == "cpu":
        differentiable = log_probs.requires_grad or (noise is not None and noise.requires_grad)
        wanted = differentiable and torch.is_grad_enabled()
        seed = torch.randint(2**63 - 1, ())
        return dual_task_on_cpu(log_probs, noise, seed, labels, ignore_index, tau, radius, hard, NON_ZERO, wanted)[0]
    noise = gumbel_noise(log_probs) if noise is None else noise.to(log_probs.dtype)
    return plain_dual_task(log_probs, labels, noise, ignore_index, tau, radius, hard)


def plain_dual_task(
    log_probs: Tensor, labels: Tensor, noise: Tensor, ignore_index: int, tau: float, radius: int, hard: bool
) -> Tensor:
    """The paper's regularizer as a chain of differentiable operations, on any device; see `dual_task_of_log_probs`."""
    valid = (labels != ignore_index).unsqueeze(1)
    soft = ((log_probs + noise) / tau).softmax(dim=1)
    if hard:
        soft = one_hot(soft.argmax(dim=1), soft) - soft.detach() + soft
    predicted = boundary_potential(soft, valid, radius)
    true = boundary_potential(one_hot(labels, soft), valid, radius)
    positive = ((predicted > NON_ZERO) | (true > NON_ZERO)) & valid
    return ((predicted - true).abs() * positive).sum() / positive.sum().clamp(min=1)


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
) -> Tensor:
    """L_reg<-: cross-entropy on the pixels where the shape stream is sure of a boundary (eq. 7).

    Args:
        logits: (B, K, H, W) float.
        labels: (B, H, W) integer, 0 to K - 1 or ``ignore_index``.
        boundary_prob: (B, 1, H, W) boundary probability in [0, 1]; receives no gradient.
        threshold: a pixel counts if its probability is above; 0.8 in the paper.
        ignore_index: label of void pixels.
        variant: "paper" or "release", as in the segmentation loss.

    Returns:
        Scalar, at least 0; 0 with zero gradient if no pixel is above the threshold.
    """
    sure = confident_labels(labels, boundary_prob, threshold, ignore_index)
    return image_weighted_cross_entropy(logits, sure, ignore_index, variant)


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


class DualTaskLoss(nn.Module):
    """Module form of :func:`dual_task_loss`, with the same arguments."""

    def __init__(
        self,
        ignore_index: int = 255,
        tau: float | None = None,
        radius: int = 4,
        hard: bool = False,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        if tau is not None and tau <= 0:
            raise SettingError(f"tau is {tau}: the Gumbel softmax needs a temperature above 0 (1 in the paper)")
        self.ignore_index = ignore_index
        self.tau = tau
        self.radius = radius
        self.hard = hard
        self.variant = variant

    def forward(self, logits: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scalar loss of (B, K, H, W) logits and (B, H, W) labels; ``noise`` replaces the random draw."""
        return dual_task_loss(logits, labels, self.ignore_index, self.tau, self.radius, self.hard, noise, self.variant)

    def of_log_probs(self, log_probs: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """The same of (B, K, H, W) log-probabilities and int64 labels."""
        return dual_task_of_log_probs(
            log_probs, labels, self.ignore_index, self.tau, self.radius, self.hard, noise, self.variant
        )
