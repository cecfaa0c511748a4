"""The network as it is exported: bytes in, label map and scores out, and no step that fixes a size."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from gscnn_lightning.errors import ExportError
from gscnn_lightning.models.folding import folded
from gscnn_lightning.models.layers import set_pointwise_dilation

INPUT = "image"
LABELS, LOGITS, BOUNDARY = "labels", "seg_logits", "boundary_prob"

# What `Prediction` holds labels in.
_BYTES = 256


class ExportedGraph(nn.Module):
    """What a file computes: normalisation and image gradient are part of it.

    Args:
        network: a `GSCNN` in evaluation mode; it is copied.
        gates: whether the attention maps of the shape stream are outputs, too.
        fixed: whether the graph is for one size alone, which is then written into it.

    Attributes:
        outputs: names of what `forward` returns, in this order.

    Raises:
        ExportError: gates are asked for, and the network has none.
    """

    def __init__(self, network: nn.Module, gates: bool = False, fixed: bool = False) -> None:
        super().__init__()
        shape_stream = getattr(network, "shape_stream", None)
        if gates and shape_stream is None:
            raise ExportError("gates are of the shape stream, and this network has none: leave --gates out")
        self.network = folded(network)
        set_pointwise_dilation(self.network, 1)  # runtimes choose by other rules than torch
        if not fixed:
            _pad_by_whole_numbers(self.network)
        self.gates = gates
        names = [LABELS, LOGITS, *([] if shape_stream is None else [BOUNDARY])]
        self.outputs = [*names, *(f"gate_{index + 1}" for index in range(3 if gates else 0))]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Segment pictures.

        Args:
            image: (B, H, W, 3) uint8 RGB, of at least 32 pixels a side.

        Returns:
            Labels (B, H, W) uint8, int64 of more than 256 classes; class scores (B, K, H, W); of a network with shape
            stream the boundary probability (B, 1, H, W) in [0, 1]; if asked for its gates (B, 1, h, w).
        """
        output = self.network(image.permute(0, 3, 1, 2))
        labels = output.seg_logits.argmax(dim=1)
        results = [labels.to(torch.uint8) if output.seg_logits.shape[1] <= _BYTES else labels, output.seg_logits]
        if output.boundary_logits is not None:
            results.append(output.boundary_logits.sigmoid())
        return (*results, *(output.gates if self.gates else ()))


class _Sides(NamedTuple):
    """Padding of one axis that makes a convolution give ceil(n / stride) places: TensorFlow's SAME."""

    kernel: int
    stride: int
    dilation: int

    def of(self, length: int) -> tuple[int, int]:
        """Places before and behind. Of whole numbers alone, which exporters work with a hundred times faster."""
        reach = self.dilation * (self.kernel - 1)
        if self.stride == 1:
            return reach // 2, reach - reach // 2
        # (ceil(n / stride) - 1) * stride + reach + 1 - n, which never falls below 0 where kernels reach past strides.
        # The last term is -n modulo the stride, written without numbers below 0.
        total = reach + 1 - self.stride + (length * (self.stride - 1)) % self.stride
        return total // 2, total - total // 2


class _SameConv2d(nn.Module):
    """A convolution of timm that pads as TensorFlow does, with padding that exporters can follow."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv)
        self.conv.__class__ = nn.Conv2d
        self.conv.padding = (0, 0)
        geometry = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        self.down, self.across = (_Sides(*(int(number) for number in axis)) for axis in geometry)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) in, (B, C', ceil(h / stride), ceil(w / stride)) out."""
        padding = (*self.across.of(x.shape[-1]), *self.down.of(x.shape[-2]))
        return self.conv(F.pad(x, padding))


def _pad_by_whole_numbers(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2dSame) and all(_reaches(child)):
                setattr(parent, name, _SameConv2d(child))


def _reaches(conv: nn.Conv2d) -> list[bool]:
    """Whether the kernel reaches past the stride, along either axis."""
    geometry = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
    return [dilation * (kernel - 1) + 1 >= stride for kernel, stride, dilation in geometry]
