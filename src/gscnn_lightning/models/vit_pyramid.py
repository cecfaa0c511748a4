"""Plain transformers as regular stream: maps of one stride, made a pyramid by a convolutional stem on the image."""

from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from gscnn_lightning.models.layers import resize

STEM_CHANNELS = (32, 64)
"""Channels of the maps of strides 2 and 4."""


class ViTPyramid(nn.Module):
    """Four maps of a model whose own maps are too coarse for a shape stream: ViT, DeiT, DINOv2 and v3, EVA and others.

    A plain transformer works at the stride of its patches from first to last, so none of its maps sees single pixels. A
    light convolutional stem on the image (Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021)
    gives maps of strides 2 and 4. The latter is added up with what a quarter of the transformer's blocks make of the
    image, so that it knows more than edges, as the map of a convolutional network at that stride does; the third map is
    that of half of the blocks and the last that of all of them, at the stride of the patches (compare Ranftl et al.,
    "Vision Transformers for Dense Prediction", ICCV 2021, with four depths, too). Every map of the transformer is
    normalised over its channels, as those within are sums of all blocks before them.

    Tokens without a place (class, registers) take part in the attention and are then left out. Positions are
    interpolated to the size of the image by timm.

    Args:
        trunk: timm's feature extractor, with maps of one stride or of several above 4.

    Attributes:
        channels: channels of the four maps.
        strides: their strides.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        info: Any = trunk.feature_info
        widths, strides = list(info.channels()), list(info.reduction())
        if len(set(strides)) == 1 and len(set(widths)) == 1 and hasattr(trunk, "out_indices"):
            model: Any = trunk.model
            depth = len(model.feature_info)
            taken: Any = trunk
            taken.out_indices = sorted({max(depth * quarters // 4 - 1, 0) for quarters in (1, 2, 4)})
            widths, strides = ([values[-1]] * len(taken.out_indices) for values in (widths, strides))
        self.trunk = trunk
        fine, coarse = STEM_CHANNELS
        self.stem = nn.Sequential(*_block(3, fine, 2), *_block(fine, fine, 1))
        self.stem_down = nn.Sequential(*_block(fine, coarse, 2))
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in widths)
        self.project = nn.Conv2d(widths[0], coarse, 1)
        self.channels = [fine, coarse, *widths[1:]]
        self.strides = [2, 4, *strides[1:]]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised image in, one (B, C, h, w) map per stage out, the finest first."""
        early, *later = (norm(m) for norm, m in zip(self.norms, self.trunk(image), strict=True))
        fine = self.stem(image)
        coarse = self.stem_down(fine)
        # Patches and pixels cover the same area: corners of the areas are aligned, not the middles of their edges.
        early = resize(self.project(early), (coarse.shape[-2], coarse.shape[-1]), align_corners=False)
        return [fine, F.gelu(coarse + early), *later]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the transformer compute the activations of its blocks again in the backward pass.

        Raises:
            AssertionError: the model does not offer it.
        """
        switch = getattr(getattr(self.trunk, "model", self.trunk), "set_grad_checkpointing", None)
        assert switch is not None, "it has no set_grad_checkpointing"
        switch(enable)

    def fresh_parameters(self) -> set[str]:
        """Names of the parameters that no weights of a transformer have: stem, normalisation, projection."""
        return {name for name, _ in self.named_parameters() if not name.startswith("trunk.")}

    def without_decay(self) -> set[str]:
        """Names of the parameters that timm takes out of weight decay: positions and tokens."""
        model: Any = getattr(self.trunk, "model", self.trunk)
        listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        names = {name: name.removeprefix("trunk.").removeprefix("model.") for name, _ in self.named_parameters()}
        return {name for name, own in names.items() if own in listed}


def _block(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    # Normalised over channels, pixel by pixel: without statistics of a batch, and the same for crops and whole frames.
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [conv, LayerNorm2d(out_channels), nn.GELU()]
