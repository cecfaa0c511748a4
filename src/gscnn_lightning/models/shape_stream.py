"""Shape stream and gated convolution (Takikawa et al., Gated-SCNN, ICCV 2019, section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gscnn_lightning.checks import are_numbers, check_shape, check_whole, is_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.models.layers import BatchNorm2d, Norm, check_maps, conv_norm, make_norm, resize_like


class GatedConv2d(nn.Module):
    """Gated convolutional layer, section 3.2, eqs. (1) and (2).

    ``alpha = sigmoid(C_1x1(s || r))`` and ``s_hat = w^T (s * alpha + s)``. As in the released program, ``C_1x1`` is
    norm, 1x1, ReLU, 1x1, norm, and ``w`` is a 1x1 convolution without bias.

    Args:
        channels: channels of the shape features ``s``, unchanged by the layer.
        norm: "batch" or "group".

    Raises:
        ValueError: ``channels`` is below 1, or ``norm`` unknown.
    """

    def __init__(self, channels: int, norm: Norm = "batch") -> None:
        super().__init__()
        check_whole("channels", channels, 1)
        joint = channels + 1
        self.gate = nn.Sequential(
            make_norm(norm, joint),
            nn.Conv2d(joint, joint, 1),
            nn.ReLU(),
            nn.Conv2d(joint, 1, 1),
            make_norm(norm, 1),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor, gating: Tensor) -> tuple[Tensor, Tensor]:
        """Gate the shape features by what the regular stream sees.

        Args:
            features: (B, C, h, w) shape features s_t.
            gating: (B, 1, h, w) regular-stream map r_t, reduced to one channel and resized to ``features``.

        Returns:
            The gated features (B, C, h, w) and the attention map alpha_t (B, 1, h, w) in [0, 1].

        Raises:
            ValueError: shapes do not belong together.
        """
        check_maps("features", features, self.conv.in_channels)
        check_shape("gating", gating, (features.shape[0], 1, *features.shape[2:]))
        norm, *layers = self.gate
        both = (features, gating)
        # Another normalisation sees all channels at once, that over several devices in place of ours included.
        alpha = norm.of_concatenated(both) if type(norm) is BatchNorm2d else norm(torch.cat(both, dim=1))
        for layer in layers:
            alpha = layer(alpha)
        return self.conv(features * (alpha + 1)), alpha


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with an identity shortcut: 3x3-norm-ReLU-3x3-norm, + x, ReLU."""

    def __init__(self, channels: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) in, the same shape out."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + x)


def _check_number(gating_maps: Sequence[object]) -> None:
    if len(gating_maps) != 3:
        raise SettingError(f"the shape stream has three gates, but {len(gating_maps)} gating maps were given")


class ShapeStream(nn.Module):
    """Residual block, 1x1, gated convolution, three times; then 1x1 to one boundary logit (section 3.2, figure 2).

    Args:
        in_channels: channels of the map that it begins in, the regular stream's first in the paper.
        gating_channels: channels of the three maps that the gates read.
        channels: width of the first residual block; it halves after each (64 -> 32 -> 16 -> 8 in the paper).
        norm: "batch" or "group".

    Attributes:
        grad_checkpointing: compute activations again in the backward pass instead of keeping them; False at first.
        feature_channels: channels of all the features together.

    Raises:
        ValueError: ``channels`` is not a multiple of 8, there are not three gating maps, or a number is below 1.
    """

    def __init__(
        self, in_channels: int, gating_channels: Sequence[int], channels: int = 64, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        check_whole("in_channels", in_channels, 1)
        if not is_whole(channels, 8) or channels % 8:
            raise SettingError(
                f"shape_channels {channels} cannot be halved three times: use a multiple of 8, such as 64"
            )
        if not are_numbers(gating_channels, lambda number: is_whole(number, 1)):
            raise SettingError(
                f"gating_channels is {gating_channels!r}: give three numbers of channels, each 1 or more"
            )
        _check_number(gating_channels)
        self.in_channels = in_channels
        self.gating_channels = tuple(gating_channels)
        self.grad_checkpointing = False
        widths = [channels >> t for t in range(4)]
        self.feature_channels = sum(widths)
        # The paper's trunk has 64 channels in its first map; other backbones are brought to the width by a 1x1.
        self.stem = nn.Identity() if in_channels == channels else conv_norm(in_channels, channels, 1, norm=norm)
        self.blocks = nn.ModuleList(ResidualBlock(width, norm) for width in widths[:3])
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.gating = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in gating_channels)
        self.gates = nn.ModuleList(GatedConv2d(width, norm) for width in widths[1:])
        self.boundary = nn.Conv2d(widths[3], 1, 1, bias=False)

    def forward(
        self, first_map: Tensor, gating_maps: Sequence[Tensor], with_features: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]] | tuple[Tensor, tuple[Tensor, ...], list[Tensor]]:
        """Boundary logits at the resolution of the map that it begins in, and the attention maps.

        Args:
            first_map: (B, C, h, w) map of the regular stream that it begins in.
            gating_maps: three coarser maps of the regular stream, any size.
            with_features: return the features that they were made of, too.

        Returns:
            Boundary logits (B, 1, h, w) and three attention maps alpha_t (B, 1, h, w) in [0, 1]; if asked for, a list
            of what the first block and each of the gates made, (B, `feature_channels`, h, w) together.

        Raises:
            ValueError: number or shapes of the maps are not those that the stream was made for.
        """
        check_maps("first_map", first_map, self.in_channels)
        _check_number(gating_maps)
        for index, regular in enumerate(gating_maps):
            check_maps(f"gating map {index}", regular, self.gating_channels[index])
        s = self.stem(first_map)
        alphas: list[Tensor] = []
        features: list[Tensor] = []
        for step, regular in enumerate(gating_maps):
            if self.grad_checkpointing and self.training:
                block, s, alpha = checkpoint(self._step, step, s, regular, use_reentrant=False)
            else:
                block, s, alpha = self._step(step, s, regular)
            alphas.append(alpha)
            features += [block, s] if step == 0 else [s]
        result = self.boundary(s), tuple(alphas)
        return (*result, features) if with_features else result

    def _step(self, step: int, s: Tensor, regular: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One of the three rounds of residual block, 1x1 and gate: the features of block and gate, attention map."""
        block = self.blocks[step](s)
        s = self.reduce[step](block)
        return block, *self.gates[step](s, resize_like(self.gating[step](regular), s))
