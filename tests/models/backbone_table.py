"""The table of backbones in docs/backbones.md, row by row: ``python -m tests.models.backbone_table`` writes it anew."""

import logging
from pathlib import Path

import timm
import torch
from tests.models.test_backbone import ONE_SIZE, OTHERS, PLAIN
from tests.models.test_gscnn import FAMILIES

from gscnn_lightning.errors import BackboneError
from gscnn_lightning.models import Backbone

PAGE = Path(__file__).parents[2] / "docs/backbones.md"
NAMES = sorted({*FAMILIES, *OTHERS.split(), *PLAIN.split(), *ONE_SIZE.split()})

INTRODUCTION = """# Backbones

`--model.backbone NAME` takes any timm model that gives feature maps of images of any size. One of each family below
was tried: a training step of the two-stream network and of the control on images of odd sizes, every parameter with a
finite gradient, and a prediction of the size of the image (`tests/models`). Larger and smaller members of a family, and
other weights (`.dinov3_lvd1689m` and the like after the name), behave the same.

- **strides** of the maps at `--model.output_stride 8`; families that cannot dilate keep their own. Where they begin
  with "2, 4 |" the model has no map that fine, as plain transformers: a convolutional stem on the image gives the two,
  see `gscnn_lightning.models.vit_pyramid.ViTPyramid`.
- **sizes** of images that the model takes; others are padded to the next, and the maps are cut back. Models of one size
  are refused. timm's `hiera_tiny_224` and its like are made for one, too, whichever `img_size` they are given;
  `hieradet_small` and `sam2_hiera_tiny` are Hiera for images of any size.
- **layer decay**: whether `--model.layer_decay` knows the layers.
- **checkpointing**: whether `--model.grad_checkpointing` works.

The table is made by `python -m tests.models.backbone_table` with timm 1.0.31, and held against the tests.

| model | strides | channels | sizes | layer decay | checkpointing |
|-|-|-|-|-|-|
"""


def row(name: str) -> str:
    """One line of the table."""
    try:
        try:
            with torch.device("meta"):  # shapes tell all of it, for nearly all
                backbone = Backbone(name, pretrained=False)
        except Exception:
            backbone = Backbone(name, pretrained=False)
    except BackboneError:
        size = max(timm.get_pretrained_cfg(name).input_size[1:])
        return f"| {name} | refused | | {size}x{size} only | | |"
    answers = []
    for question in (lambda: backbone.layer_scales(0.75), backbone.set_grad_checkpointing):
        try:
            question()
            answers.append("yes")
        except BackboneError:
            answers.append("no")
    strides = list(map(str, backbone.strides))
    stem = type(backbone.encoder).__name__ == "ViTPyramid"
    told = f"{', '.join(strides[:2])} \\| {', '.join(strides[2:])}" if stem else ", ".join(strides)
    multiple, smallest = backbone.input_sizes
    sizes = "any" if multiple == 1 else f"multiples of {multiple}"
    sizes += f" from {smallest} on" if smallest > 32 else ""
    channels = ", ".join(map(str, backbone.channels))
    return f"| {name} | {told} | {channels} | {sizes} | {' | '.join(answers)} |"


def rows() -> dict[str, str]:
    """Lines of the table as it is committed, by model."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return {
        line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ") and "---" not in line
    }


if __name__ == "__main__":
    logging.disable()
    with PAGE.open("w", encoding="utf-8") as file:
        file.write(INTRODUCTION)
        for name in NAMES:
            file.write(f"{row(name)}\n")
            file.flush()
