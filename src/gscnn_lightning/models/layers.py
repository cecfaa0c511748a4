"""Small pieces shared by the shape stream, the fusion module and the decoder."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gscnn_lightning.checks import check_tensor
from gscnn_lightning.errors import SettingError

Norm = Literal["batch", "group"]


# Channels up to which torch normalises channels-last maps on processors slower than a few sums and products take.
_NARROW = 8
# Values of several places side by side, as many as whole registers hold.
_ABREAST = 64


class _NarrowNorm(Function):
    """Batch normalisation of a channels-last map of few channels, several places at once as if they were channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        rows, times = _abreast(x)
        mean = _over_places(rows.sum(0), times) / (x.numel() // x.shape[1])
        centred = rows - mean.repeat(times)
        var = _over_places((centred * centred).sum(0), times) / (x.numel() // x.shape[1])
        inverse = (var + eps).rsqrt()
        ctx.save_for_backward(x, mean, inverse, weight)
        ctx.mark_non_differentiable(mean, var)
        result = torch.addcmul(bias.repeat(times), centred, (inverse * weight).repeat(times))
        return _as_map(result, x), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_result: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, mean, inverse, weight = ctx.saved_tensors
        rows, times = _abreast(x)
        by_rows = _abreast(by_result.contiguous(memory_format=torch.channels_last))[0]
        normal = (rows - mean.repeat(times)).mul_(inverse.repeat(times))
        by_bias = _over_places(by_rows.sum(0), times)
        by_weight = _over_places((by_rows * normal).sum(0), times)
        count = x.numel() // x.shape[1]
        by_x = torch.addcmul(by_rows - (by_bias / count).repeat(times), normal, (-by_weight / count).repeat(times))
        by_x *= (inverse * weight).repeat(times)
        return _as_map(by_x, x), by_weight, by_bias, None


def _abreast(x: Tensor) -> tuple[Tensor, int]:
    """A channels-last map (B, C, h, w) as rows of several places, and how many."""
    places = x.numel() // x.shape[1]
    times = math.gcd(places, _ABREAST // x.shape[1])
    return x.permute(0, 2, 3, 1).reshape(places // times, times * x.shape[1]), times


def _over_places(row: Tensor, times: int) -> Tensor:
    return row.view(times, -1).sum(0)


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    count, channels, height, width = like.shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def _normalised(
    x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """Batch normalisation in training, by what is fastest; updates the running statistics."""
    narrow = 1 < x.shape[1] <= _NARROW and x.device.type == "cpu" and x.dtype == torch.float32
    if not narrow or torch.compiler.is_compiling() or not x.is_contiguous(memory_format=torch.channels_last):
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    result, mean, var = _NarrowNorm.apply(x, weight, bias, eps)
    count = x.numel() // x.shape[1]
    # Behind autograd's back, as torch does it: backward passes of other parts of one layer hold the same tensor.
    running_mean.data.lerp_(mean, momentum)
    running_var.data.lerp_(var * (count / (count - 1)), momentum)
    return result


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a batch has one single value per channel.

    That happens to the image-pooling branch at batch size 1, where torch's layer raises. The Trainer's
    ``sync_batchnorm`` replaces this layer as it does any batch normalisation, and then statistics span the devices.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) in, the same shape out."""
        if input.shape[0] * input.shape[2] * input.shape[3] == 1:
            stats = (self.running_mean, self.running_var)
            return F.batch_norm(input, *stats, self.weight, self.bias, False, 0.0, self.eps)
        if not self.training or self.momentum is None or not (self.affine and self.track_running_stats):
            return super().forward(input)
        return self.of_concatenated([input])

    def of_concatenated(self, inputs: Sequence[Tensor]) -> Tensor:
        """The same as of ``torch.cat(inputs, dim=1)``, which then need not be kept for the gradient.

        Channels are normalised one by one, so it may be done before they are joined. Hooks of the layer do not see it.

        Args:
            inputs: (B, C_i, h, w) each, with as many channels in all as the layer has.

        Returns:
            (B, C, h, w), in the memory format of the first.
        """
        if self.momentum is None or not (self.affine and self.track_running_stats):
            return self(torch.cat(list(inputs), dim=1))
        several = inputs[0].shape[0] * inputs[0].shape[2] * inputs[0].shape[3] > 1
        training = self.training and several
        if training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        widths = [x.shape[1] for x in inputs]
        assert self.running_mean is not None
        assert self.running_var is not None
        slices = (t.split(widths) for t in (self.running_mean, self.running_var, self.weight, self.bias))
        parts = [
            _normalised(x, mean, var, weight, bias, self.momentum, self.eps)
            if training
            else F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
            for x, mean, var, weight, bias in zip(inputs, *slices, strict=True)
        ]
        return parts[0] if len(parts) == 1 else concatenated(parts, inputs[0])


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """A normalisation layer by name: "batch", or "group" with at most 16 groups of at least 4 channels where possible.

    Raises:
        ValueError: the name is neither.
    """
    if norm == "batch":
        return BatchNorm2d(channels)
    if norm == "group":
        groups = next(g for g in (16, 8, 4, 2, 1) if channels % g == 0 and (channels >= 4 * g or g == 1))
        return nn.GroupNorm(groups, channels)
    raise SettingError(f"norm {norm!r} is not known: use 'batch' or 'group'")


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, dilation: int = 1, norm: Norm = "batch", separable: bool = False
) -> nn.Sequential:
    """Convolution without bias that keeps the size, normalisation, ReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: height and width of the kernel, odd.
        dilation: distance of its taps.
        norm: "batch" or "group".
        separable: one kernel per channel, then a 1x1 convolution, in place of a full one (Chollet, "Xception", CVPR
            2017). A 1x1 convolution stays as it is.
    """
    padding = dilation * (kernel // 2)
    shape: dict[str, Any] = {"kernel_size": kernel, "padding": padding, "dilation": dilation, "bias": False}
    if separable and kernel > 1:
        depthwise = nn.Conv2d(in_channels, in_channels, groups=in_channels, **shape)
        convs = [depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=False)]
    else:
        convs = [nn.Conv2d(in_channels, out_channels, **shape)]
    return nn.Sequential(*convs, make_norm(norm, out_channels), nn.ReLU())


def in_format_of(x: Tensor, other: Tensor) -> Tensor:
    """A map in the memory format of another, for one that would not hand it on.

    Strides of a map of one channel say nothing of its format. What is made of it, also beside others, would be
    contiguous, and every narrow convolution after that several times slower than channels-last.

    Args:
        x: (B, C, h, w).
        other: (B, C', h', w').

    Returns:
        The same numbers.
    """
    if torch.compiler.is_compiling() or other.is_contiguous():
        return x
    if x.shape[1] == 1:  # `contiguous` would leave it as it is
        return x.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def concatenated(maps: Sequence[Tensor], other: Tensor) -> Tensor:
    """Maps (B, C_i, h, w) one after another, in the memory format of another map: (B, C, h, w)."""
    return torch.cat([in_format_of(x, other) for x in maps], dim=1)


def check_maps(name: str, x: Tensor, channels: int) -> None:
    """Raise unless maps have a number of channels.

    Raises:
        ValueError: it is not a tensor (B, C, h, w) of as many channels.
    """
    check_tensor(name, x)
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give (B, {channels}, h, w)")


def check_beside(name: str, x: Tensor, batch: int, channels: int = 1) -> None:
    """Raise unless maps are of a batch of other maps, in any size.

    Raises:
        ValueError: it is not a tensor (B, C, h, w) of as many images and channels.
    """
    check_tensor(name, x)
    if x.ndim != 4 or x.shape[:2] != (batch, channels):
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give ({batch}, {channels}, h, w)")


def resize(x: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """Bilinear resize to ``size`` (h, w); inside the network corners are aligned, as in the released program."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def resize_strided(x: Tensor, size: tuple[int, int], stride: int, align_corners: bool = True) -> Tensor:
    """Every n-th row and column of :func:`resize`, without computing the others.

    Args:
        x: (B, C, h, w) float.
        size: height and width (H, W) of the whole result.
        stride: n; the first row and column are taken.
        align_corners: as in :func:`torch.nn.functional.interpolate`.

    Returns:
        (B, C, ceil(H / n), ceil(W / n)).
    """
    if stride == 1:
        return resize(x, size, align_corners)
    # Half precision would round the weights, whose sum would then not be 1.
    whole = x.to(torch.promote_types(x.dtype, torch.float32))
    rows, cols = (_interpolation_matrix(x.shape[dim], size[dim - 2], stride, align_corners, whole) for dim in (2, 3))
    with torch.autocast(x.device.type, enabled=False):
        return (rows @ whole @ cols.T).to(x.dtype)


def _interpolation_matrix(n: int, size: int, stride: int, align_corners: bool, like: Tensor) -> Tensor:
    """Linear interpolation of n values at every ``stride``-th of ``size`` positions, as a matrix."""
    position = torch.arange(0, size, stride, device=like.device, dtype=torch.float32)
    if align_corners:
        position = position * ((n - 1) / max(size - 1, 1))
    else:
        position = ((position + 0.5) * (n / size) - 0.5).clamp(min=0, max=n - 1)
    distance = (position[:, None] - torch.arange(n, device=like.device)).abs()
    return (1 - distance).clamp(min=0).to(like.dtype)


def resize_by_area(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over the area of the image that each place of ``size`` (h, w) covers, as ``mode="area"`` of torch.

    Exporters turn that into pooling with a fixed window, which is right for one size alone. For them it is a product
    with one matrix per axis, the same up to rounding and slower.
    """
    if not torch.compiler.is_exporting():
        return F.interpolate(x, size=size, mode="area")
    rows, cols = (_area_matrix(x.shape[dim], size[dim - 2], x) for dim in (2, 3))
    return rows @ x @ cols.T


def _area_matrix(n: int, size: int, like: Tensor) -> Tensor:
    """Means of n values over ``size`` areas, neighbours of which may have a value in common, as a matrix."""
    place, value = torch.arange(size, device=like.device)[:, None], torch.arange(n, device=like.device)
    # From floor(place * n / size) to below ceil((place + 1) * n / size), in whole numbers.
    inside = (value >= place * n // size) & (value < ((place + 1) * n + size - 1) // size)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear resize to the size that another map really has; computed sizes differ between backbone families."""
    return resize(x, (other.shape[-2], other.shape[-1]))


def set_memory_format(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Keep weights (C, C', h, w) in a memory format; those of other dimensions stay, where `nn.Module.to` raises.

    Args:
        network: anything, such as a backbone with a convolution over three dimensions.
        memory_format: `torch.channels_last` or `torch.contiguous_format`.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def set_pointwise_dilation(network: nn.Module, distance: int) -> None:
    """Give 1x1 convolutions a dilation, which changes nothing in what they compute, but who computes it.

    With one thread and fewer than 16 images torch takes those without for a product of matrices of its own, and leaves
    the others to oneDNN: channels-last that took 0.3 to 0.5 of the time with AVX-512, and 0.5 to 0.9 with the kernels
    for AVX2 (64 to 1,152 channels, AMD EPYC). With more threads all are oneDNN's.

    Args:
        network: anything with convolutions.
        distance: 1 for torch's choice, 2 for oneDNN.
    """
    for module in network.modules():
        # Those with a stride and grouped ones are oneDNN's anyway.
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride == (1, 1) and module.groups == 1:
            module.dilation = (distance, distance)


def trains_faster_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Whether a network is known to train faster in channels-last memory format.

    Measured in float32, six families took 0.7 to 1.05 of the contiguous time. WideResNet-38, whose full 3x3
    convolutions have 1,024 channels and more, took 1.1 times as long on a processor with AVX2 alone, and 0.9 to 1.0
    with AVX-512.

    Args:
        network: anything with convolutions.
        device: on which it is to be trained.
    """
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return True
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and min(m.kernel_size) > 1]
    return not any(conv.out_channels >= 1024 for conv in convs)
