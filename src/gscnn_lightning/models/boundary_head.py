"""Boundary supervision without a shape stream: the row of an ablation that tells what supervision alone does."""

from collections.abc import Sequence

from torch import Tensor, nn

from gscnn_lightning.models.layers import resize_like


class BoundaryHead(nn.Module):
    """One boundary logit of each map of the backbone by a 1x1, and their weighted sum (Xie and Tu, HED, ICCV 2015).

    It reads the maps that a shape stream would read, has none of its layers, and is of use in training alone.

    Args:
        channels: channels of the maps, the finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels)

    def start_near_zero(self) -> None:
        """Small weights, as the boundary loss has a large one."""
        for side in self.sides:
            assert isinstance(side, nn.Conv2d)
            nn.init.normal_(side.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Boundary logits (B, 1, h, w) at the resolution of the first of the maps (B, C, h, w)."""
        first, *others = [side(x) for side, x in zip(self.sides, maps, strict=True)]
        return first + sum(resize_like(x, first) for x in others)
