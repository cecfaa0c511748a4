"""The last upsampling steered by finer maps: an extension, no part of the paper's network."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gscnn_lightning.checks import check_whole
from gscnn_lightning.models.layers import Norm, check_beside, check_maps, concatenated, make_norm, resize_like


class ConvexUpsampling(nn.Module):
    """Class scores at the resolution of finer maps: weighted means of the 3x3 coarse scores around each place.

    The nine weights, positive and of sum 1, are learnt of what finer maps show there, such as the first map of the
    backbone: a place next to a boundary can take the scores of its own side (convex upsampling of Teed and Deng, RAFT,
    ECCV 2020, section 3.3; there of optical flow). What is too thin for the coarse scores is in none of them: so the
    same features also add to the score of each class. Before training that is 0, and the whole close to upsampling by
    repetition.

    Args:
        num_classes: number of classes K.
        fine_channels: channels of the finer maps, together.
        channels: channels of the features at the resolution of the scores: those that they were made of, and others.
        ratio: how many times finer the finer maps are, along each axis.
        width: width of the 3x3 convolution of the finer maps, to which the features are brought, too.
        norm: "batch" or "group".

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, num_classes: int, fine_channels: int, channels: int, ratio: int = 2, width: int = 32, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        numbers = {"num_classes": num_classes, "fine_channels": fine_channels, "channels": channels, "ratio": ratio}
        for name, number in {**numbers, "width": width}.items():
            check_whole(name, number, 1)
        self.ratio = ratio
        self.fine_channels = fine_channels
        self.squeeze = nn.Conv2d(channels, width, 1, bias=False)
        self.conv = nn.Conv2d(fine_channels, width, 3, padding=1, bias=False)
        self.norm = make_norm(norm, width)
        self.weights = nn.Conv2d(width, 9, 1)
        self.additions = nn.Conv2d(width, num_classes, 1)

    def start_as_repetition(self) -> None:
        """Weights that are nearly those of the place itself, and nothing added."""
        nn.init.zeros_(self.additions.weight)
        assert self.additions.bias is not None
        nn.init.zeros_(self.additions.bias)
        nn.init.normal_(self.weights.weight, std=0.01)
        assert self.weights.bias is not None
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.weights.bias[4] = 2.0

    def forward(self, scores: Tensor, features: Tensor, fine: list[Tensor]) -> Tensor:
        """Scores at the resolution of the finer maps.

        Args:
            scores: (B, K, h, w) class scores.
            features: (B, C, h, w) what they were made of, and other features of their resolution.
            fine: maps (B, c, H, W) of ``ratio`` times the resolution of the scores, but for the last rows and columns.

        Returns:
            (B, K, H, W).

        Raises:
            ValueError: shapes do not belong together.
        """
        check_maps("features", features, self.squeeze.in_channels)
        check_beside("scores", scores, features.shape[0], self.additions.out_channels)
        channels = sum(x.shape[1] for x in fine)
        if channels != self.fine_channels:
            raise ValueError(f"the fine maps have {channels} channels in all: give {self.fine_channels}")
        (B, _, h, w), (H, W) = scores.shape, fine[0].shape[2:]
        for index, x in enumerate(fine):
            if (x.shape[0], *x.shape[2:]) != (B, H, W):
                raise ValueError(f"fine map {index} has shape {tuple(x.shape)}: give ({B}, c, {H}, {W})")
        for size, finer in ((h, H), (w, W)):
            if not self.ratio * (size - 1) < finer <= self.ratio * (size + 1):
                raise ValueError(
                    f"the fine maps are {H}x{W} and the scores {h}x{w}: give maps {self.ratio} times as large"
                )
        seen = self.conv(concatenated(fine, fine[0])) + resize_like(self.squeeze(features), fine[0])
        seen = F.relu(self.norm(seen))
        return convex_combination(scores, self.weights(seen).softmax(dim=1), self.ratio) + self.additions(seen)


def convex_combination(scores: Tensor, weights: Tensor, ratio: int) -> Tensor:
    """Sum of the 3x3 scores around each place, weighted for each finer place.

    Args:
        scores: (B, K, h, w).
        weights: (B, 9, H, W) in [0, 1], row by row of the 3x3, with H and W of about r * h and r * w, r more at most.
        ratio: r; the finer places of a coarse one are r * r.

    Returns:
        (B, K, H, W); outside of the scores their last rows and columns are repeated.

    Example:
        >>> centre = torch.zeros(1, 9, 4, 3)
        >>> centre[:, 4] = 1
        >>> convex_combination(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), centre, 2)[0, 0]
        tensor([[1., 1., 2.],
                [1., 1., 2.],
                [3., 3., 4.],
                [3., 3., 4.]])
    """
    height, width = weights.shape[-2:]
    # One coarse row and column more than there are: maps of sizes that were rounded down may end beyond the others, and
    # sizes that are rounded here are not known to fit by programs that are exported for any size.
    h, w = scores.shape[-2] + 1, scores.shape[-1] + 1
    weights = F.pad(weights, (0, ratio * w - width, 0, ratio * h - height))
    # The places of one coarse place in channels of their own, so that what is multiplied lies side by side in memory.
    weights = weights.unflatten(-1, (w, ratio)).unflatten(-3, (h, ratio))  # (B, 9, h, r, w, r)
    weights = weights.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)  # (B, 9, r * r, h, w)
    kind = torch.promote_types(scores.dtype, weights.dtype)
    around = _repeated(_repeated(scores, 2), 3)
    total = _Combination.apply(around.to(kind), weights.to(kind))
    total = total.unflatten(2, (ratio, ratio)).permute(0, 1, 4, 2, 5, 3)  # (B, K, h, r, w, r)
    return total.flatten(-2).flatten(-3, -2)[..., :height, :width]


def _repeated(x: Tensor, dim: int) -> Tensor:
    """First and last places once and twice more.

    Padding with "replicate" is the same, but fails in compiled backward passes of channels-last maps (torch 2.14).
    """
    last = x.narrow(dim, -1, 1)
    return torch.cat((x.narrow(dim, 0, 1), x, last, last), dim)


class _Combination(Function):
    """Sum of nine shifted maps (B, K, h + 2, w + 2), each weighted for n finer places: (B, K, n, h, w).

    Taken apart by autograd, the nine products and their gradients would all be kept, and be added one by one.
    """

    @staticmethod
    def forward(ctx: Any, around: Tensor, weights: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(around, weights)
        total = torch.zeros((), dtype=around.dtype, device=around.device)
        for index, shifted in enumerate(_shifted(around)):
            total = torch.addcmul(total, shifted, weights[:, index].unsqueeze(1))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        around, weights = ctx.saved_tensors
        by_around = torch.zeros_like(around)
        by_weights = torch.empty_like(weights)
        for index, (shifted, part) in enumerate(zip(_shifted(around), _shifted(by_around), strict=True)):
            part += (by_total * weights[:, index].unsqueeze(1)).sum(2, keepdim=True)
            by_weights[:, index] = (by_total * shifted).sum(1)
        return by_around, by_weights


def _shifted(around: Tensor) -> list[Tensor]:
    """The nine views (B, K, 1, h, w), row by row."""
    h, w = around.shape[-2] - 2, around.shape[-1] - 2
    return [around[..., y : y + h, x : x + w].unsqueeze(2) for y in range(3) for x in range(3)]
