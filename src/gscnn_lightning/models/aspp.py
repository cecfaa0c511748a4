"""Fusion module: atrous spatial pyramid pooling that also takes the boundary map (section 3.3 of the paper)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import are_numbers, check_whole, is_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.models.layers import Norm, check_beside, check_maps, conv_norm, in_format_of, resize_like


class BoundaryASPP(nn.Module):
    """ASPP of DeepLabv3+ with one more branch for the boundary attention.

    Branches, in the order of their channels: image pooling, boundary attention (if any), 1x1, three dilated 3x3.

    Args:
        in_channels: channels of the last map of the regular stream.
        channels: channels of each branch; 256 in the paper.
        rates: dilation of the three 3x3 branches; 12, 24, 36 at stride 8 and 6, 12, 18 at stride 16.
        boundary: whether there is a boundary branch; without it this is the ASPP of DeepLabv3+.
        norm: "batch" or "group".
        separable: depthwise separable convolutions in the dilated branches.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        boundary: bool = True,
        norm: Norm = "batch",
        separable: bool = False,
    ) -> None:
        super().__init__()
        check_whole("in_channels", in_channels, 1)
        check_whole("channels", channels, 1)
        if not are_numbers(rates, lambda rate: is_whole(rate, 1)):
            raise SettingError(f"rates is {rates!r}: give dilations of 1 or more, such as (12, 24, 36)")
        self.in_channels = in_channels
        self.pool = conv_norm(in_channels, channels, 1, norm=norm)
        self.boundary = conv_norm(1, channels, 1, norm=norm) if boundary else None
        self.branches = nn.ModuleList([conv_norm(in_channels, channels, 1, norm=norm)])
        self.branches.extend(conv_norm(in_channels, channels, 3, rate, norm, separable) for rate in rates)
        self.out_channels = channels * (1 + int(boundary) + len(self.branches))

    def forward(
        self, features: Tensor, boundary_attention: Tensor | None = None, joined: bool = True
    ) -> Tensor | list[Tensor]:
        """All branches.

        Args:
            features: (B, C, h, w) last map of the regular stream.
            boundary_attention: (B, 1, h', w') in [0, 1], any size; resized to ``features``.
            joined: False gives the branches one by one, for `JoiningConv2d`; that of image pooling is then
                (B, ``channels``, 1, 1).

        Returns:
            (B, ``out_channels``, h, w), or a list.

        Raises:
            ValueError: a boundary attention is missing where there is a branch for it, or the reverse; or shapes do not
                belong together.
        """
        check_maps("features", features, self.in_channels)
        if boundary_attention is not None:
            check_beside("boundary_attention", boundary_attention, features.shape[0])
        if (boundary_attention is None) != (self.boundary is None):
            raise ValueError(
                "BoundaryASPP was built with boundary="
                f"{self.boundary is not None}, but boundary_attention is "
                f"{'missing' if boundary_attention is None else 'given'}"
            )
        # The mean keeps any size exportable, where adaptive pooling would not.
        outputs = [self.pool(features.mean(dim=(2, 3), keepdim=True))]
        if self.boundary is not None and boundary_attention is not None:
            attention = resize_like(boundary_attention, features)
            outputs.append(self.boundary(in_format_of(attention, features)))
        outputs.extend(branch(features) for branch in self.branches)
        if not joined:
            return outputs
        return torch.cat([output.expand(-1, -1, *features.shape[-2:]) for output in outputs], dim=1)


class JoiningConv2d(nn.Conv2d):
    """A 1x1 convolution without bias of maps as if they were concatenated: the sum of a convolution of each.

    The concatenation is never made, and a map of one place is convolved there alone. In half precision every term of
    the sum is rounded by itself.

    Args:
        in_channels: channels of all maps together.
        out_channels: channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, input: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """(B, C_i, h, w) or (B, C_i, 1, 1) each, the latter not all: (B, ``out_channels``, h, w)."""
        weights = self.weight.split([x.shape[1] for x in input], dim=1)
        first, *others = [F.conv2d(x, weight) for x, weight in zip(input, weights, strict=True)]
        return sum(others, start=first)
