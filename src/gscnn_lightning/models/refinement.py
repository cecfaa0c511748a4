"""The last upsampling steered by finer maps: an extension, no part of the paper's network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import check_whole
from gscnn_lightning.models.layers import Norm, check_beside, check_maps, conv_norm, resize_like

_SQUEEZED = 16


class ConvexUpsampling(nn.Module):
    """Class scores at the resolution of finer maps: weighted means of the 3x3 coarse scores around each place.

    The nine weights, positive and of sum 1, are learnt of what finer maps show there, such as the features of the shape
    stream: a place next to a boundary can take the scores of its own side (convex upsampling of Teed and Deng, RAFT,
    ECCV 2020, section 3.3; there of optical flow). Before training it is close to upsampling by repetition.

    Args:
        fine_channels: channels of the finer maps, together.
        channels: channels of the features that the scores were made of.
        width: width of the one 3x3 convolution.
        norm: "batch" or "group".

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, fine_channels: int, channels: int, width: int = 32, norm: Norm = "batch") -> None:
        super().__init__()
        for name, number in (("fine_channels", fine_channels), ("channels", channels), ("width", width)):
            check_whole(name, number, 1)
        self.fine_channels = fine_channels
        self.squeeze = nn.Conv2d(channels, _SQUEEZED, 1, bias=False)
        self.conv = conv_norm(_SQUEEZED + fine_channels, width, 3, norm=norm)
        self.weights = nn.Conv2d(width, 9, 1)

    def start_as_repetition(self) -> None:
        """Weights that are nearly those of the place itself."""
        nn.init.normal_(self.weights.weight, std=0.01)
        assert self.weights.bias is not None
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.weights.bias[4] = 2.0

    def forward(self, scores: Tensor, features: Tensor, fine: list[Tensor]) -> Tensor:
        """Scores at the resolution of the finer maps.

        Args:
            scores: (B, K, h, w) class scores.
            features: (B, C, h, w) what they were made of.
            fine: maps (B, c, H, W) of a resolution that is a whole multiple of the scores', up to the last rows and
                columns.

        Returns:
            (B, K, H, W).

        Raises:
            ValueError: shapes do not belong together.
        """
        check_maps("features", features, self.squeeze.in_channels)
        check_beside("scores", scores, features.shape[0], scores.shape[1])
        channels = sum(x.shape[1] for x in fine)
        if channels != self.fine_channels:
            raise ValueError(f"the fine maps have {channels} channels in all: give {self.fine_channels}")
        (B, _, h, w), (H, W) = scores.shape, fine[0].shape[2:]
        for index, x in enumerate(fine):
            if (x.shape[0], *x.shape[2:]) != (B, H, W):
                raise ValueError(f"fine map {index} has shape {tuple(x.shape)}: give ({B}, c, {H}, {W})")
        if h > H or w > W:
            raise ValueError(f"the fine maps are {H}x{W} and the scores {h}x{w}: give maps at least as large")
        joined = torch.cat([resize_like(self.squeeze(features), fine[0]), *fine], dim=1)
        return convex_combination(scores, self.weights(self.conv(joined)).softmax(dim=1))


def convex_combination(scores: Tensor, weights: Tensor) -> Tensor:
    """Sum of the 3x3 scores around each place, weighted for each finer place.

    Args:
        scores: (B, K, h, w).
        weights: (B, 9, H, W) in [0, 1], row by row of the 3x3, with H of r * h and W of r * w, up to r - 1 fewer.

    Returns:
        (B, K, H, W); outside of the scores their last rows and columns are repeated.

    Example:
        >>> centre = torch.zeros(1, 9, 4, 3)
        >>> centre[:, 4] = 1
        >>> convex_combination(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), centre)[0, 0]
        tensor([[1., 1., 2.],
                [1., 1., 2.],
                [3., 3., 4.],
                [3., 3., 4.]])
    """
    (h, w), (height, width) = scores.shape[-2:], weights.shape[-2:]
    # Rounded up, but not by way of negative numbers, which exported programs round towards zero.
    down, across = (height + h - 1) // h, (width + w - 1) // w
    weights = F.pad(weights, (0, across * w - width, 0, down * h - height))
    # The places of one coarse place in channels of their own, so that what is multiplied lies side by side in memory.
    weights = weights.unflatten(-1, (w, across)).unflatten(-3, (h, down))  # (B, 9, h, down, w, across)
    weights = weights.permute(0, 1, 3, 5, 2, 4).flatten(2, 3).unsqueeze(1)  # (B, 1, 9, down * across, h, w)
    around = F.pad(scores, (1, 1, 1, 1), mode="replicate").unsqueeze(2)
    total = around[..., :h, :w] * weights[:, :, 0]
    for index in range(1, 9):
        y, x = divmod(index, 3)
        total = torch.addcmul(total, around[..., y : y + h, x : x + w], weights[:, :, index])
    total = total.unflatten(2, (down, across)).permute(0, 1, 4, 2, 5, 3)  # (B, K, h, down, w, across)
    return total.flatten(-2).flatten(-3, -2)[..., :height, :width]
