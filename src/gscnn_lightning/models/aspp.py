"""Fusion module: atrous spatial pyramid pooling that also takes the boundary map (section 3.3 of the paper)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.models.layers import Norm, conv_norm, resize_like


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
        self.pool = conv_norm(in_channels, channels, 1, norm=norm)
        self.boundary = conv_norm(1, channels, 1, norm=norm) if boundary else None
        self.branches = nn.ModuleList([conv_norm(in_channels, channels, 1, norm=norm)])
        self.branches.extend(conv_norm(in_channels, channels, 3, rate, norm, separable) for rate in rates)
        self.out_channels = channels * (1 + int(boundary) + len(self.branches))

    def forward(self, features: Tensor, boundary_attention: Tensor | None = None) -> Tensor:
        """Concatenated branches.

        Args:
            features: (B, C, h, w) last map of the regular stream.
            boundary_attention: (B, 1, h', w') in [0, 1], any size; resized to ``features``.

        Returns:
            (B, ``out_channels``, h, w).

        Raises:
            ValueError: a boundary attention is missing where there is a branch for it, or the reverse.
        """
        outputs = self._outputs(features, boundary_attention)
        return torch.cat([output.expand(-1, -1, *features.shape[-2:]) for output in outputs], dim=1)

    def projected(self, features: Tensor, boundary_attention: Tensor | None, projection: nn.Conv2d) -> Tensor:
        """A 1x1 convolution of the concatenated branches, as the sum of 1x1 convolutions of the branches.

        The concatenation is never made, and image pooling is projected at its one place instead of all.

        Args:
            features: as for `forward`.
            boundary_attention: as for `forward`.
            projection: 1x1 convolution of ``out_channels`` without bias.

        Returns:
            (B, C', h, w) with the channels of the projection.

        Raises:
            ValueError: as for `forward`.
        """
        outputs = self._outputs(features, boundary_attention)
        weights = projection.weight.split(outputs[0].shape[1], dim=1)
        pooled, *maps = [F.conv2d(output, weight) for output, weight in zip(outputs, weights, strict=True)]
        return sum(maps, start=pooled)

    def _outputs(self, features: Tensor, boundary_attention: Tensor | None) -> list[Tensor]:
        """Branches in the order of their channels; that of image pooling is (B, C, 1, 1)."""
        if (boundary_attention is None) != (self.boundary is None):
            raise ValueError(
                "BoundaryASPP was built with boundary="
                f"{self.boundary is not None}, but boundary_attention is "
                f"{'missing' if boundary_attention is None else 'given'}"
            )
        # The mean keeps any size exportable, where adaptive pooling would not.
        outputs = [self.pool(features.mean(dim=(2, 3), keepdim=True))]
        if self.boundary is not None and boundary_attention is not None:
            outputs.append(self.boundary(resize_like(boundary_attention, features)))
        return outputs + [branch(features) for branch in self.branches]
