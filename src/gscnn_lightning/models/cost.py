"""What the parts of the network cost: parameters and floating-point operations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from rich import box
from rich.table import Table
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from gscnn_lightning.errors import SettingError
from gscnn_lightning.models.gscnn import GSCNN

PARTS: Mapping[str, tuple[str, ...]] = {
    "trunk": ("backbone",),
    "shape stream": ("shape_stream", "boundary_fusion"),
    "ASPP": ("aspp",),
    "decoder": ("aspp_project", "aspp_block", "skip_project", "decoder"),
    "refinement": ("refinement",),
    "boundary head, in training": ("boundary_head",),
}
"""Modules of ``GSCNN`` in each part. The shape stream includes the 1x1 convolutions of the maps that its gates read and
the 2 -> 1 convolution of boundary map and image gradient; the boundary branch behind it counts as ASPP."""


class PartCost(NamedTuple):
    """Cost of one part of the network.

    Attributes:
        part: one of `PARTS`, or "total".
        parameters: trainable or frozen numbers, without buffers.
        gflops: 1e9 floating-point operations of a forward pass, two per multiply-add of a convolution or matrix
            product; element-wise operations, resizes and the image gradient are not counted.
    """

    part: str
    parameters: int
    gflops: float


def meta_network(num_classes: int = 19, **network: Any) -> GSCNN:  # noqa: ANN401
    """A network without memory for its weights.

    Args:
        num_classes: number of classes.
        **network: arguments of `GSCNN` but those about weights.

    Raises:
        GSCNNError: the backbone is unknown, or a setting is out of range.
    """
    with torch.device("meta"):
        return GSCNN(num_classes, pretrained=False, backbone_weights=None, **network)


def network_cost(network: GSCNN, size: tuple[int, int]) -> list[PartCost]:
    """Cost of every part, and the total, for one image; nothing is computed and the network is not touched.

    Args:
        network: Gated-SCNN or its control, on any device.
        size: height and width of the image in pixels, at least 32.

    Returns:
        One entry per part that the network has, and "total".

    Raises:
        ValueError: the image is too small.
    """
    if min(size) < 32:
        raise SettingError(f"an image of {size[0]}x{size[1]} pixels is too small: use at least 32x32")
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image, gradient = (torch.empty(1, channels, *size, device="meta") for channels in (3, 1))
    training = [module for module in network.modules() if module.training]
    try:
        # In training, normalisation over several devices wants maps on a GPU, and all processes at once.
        network.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(network, shapes, (image, gradient))
    finally:
        for module in training:
            module.training = True
    counts = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    root = type(network).__name__
    costs = []
    for part, names in PARTS.items():
        modules = {name: m for name in names if (m := getattr(network, name, None)) is not None}
        parameters = sum(p.numel() for module in modules.values() for p in module.parameters())
        if modules:
            costs.append(PartCost(part, parameters, sum(counts.get(f"{root}.{name}", 0) for name in modules) / 1e9))
    return [*costs, PartCost("total", sum(c.parameters for c in costs), sum(c.gflops for c in costs))]


def cost_table(costs: list[PartCost]) -> Table:
    """A table that fits 80 columns: every part with its parameters, its operations and its share of both.

    Args:
        costs: as `network_cost` returns them, the total last.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part")
    for column in ("parameters", "%", "GFLOP", "%"):
        table.add_column(column, justify="right")
    total = costs[-1]
    for cost in costs:
        shares = [100 * part / max(whole, 1e-9) for part, whole in zip(cost[1:], total[1:], strict=True)]
        table.add_row(cost.part, f"{cost.parameters:,}", f"{shares[0]:.2f}", f"{cost.gflops:,.1f}", f"{shares[1]:.1f}")
    return table
