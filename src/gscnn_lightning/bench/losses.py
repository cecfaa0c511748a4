"""``gscnn bench losses``: the joint losses and their terms, forward and backward, beside torch's cross-entropy."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gscnn_lightning.bench import Timing, check_repeats, time_side_by_side
from gscnn_lightning.bench.counts import counted_flop
from gscnn_lightning.bench.machine import Precision, autocast, checked_precision, torch_threads
from gscnn_lightning.bench.record import BenchRecord
from gscnn_lightning.bench.subjects import check_size, drawn_frames
from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.checkpoint import chosen_device
from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses import (
    GSCNNLoss,
    boundary_attention_loss,
    boundary_bce,
    dual_task_loss,
    image_weighted_cross_entropy,
)
from gscnn_lightning.losses.checks import Variant
from gscnn_lightning.output import GSCNNOutput
from gscnn_lightning.terminal import new_table, say

CLASSES = 19
BASELINE = "torch cross-entropy"


class Given(NamedTuple):
    """What the losses of one size are computed of.

    Attributes:
        logits: (B, 19, H, W) float, with gradient.
        boundary_logits: (B, 1, H, W) float, with gradient.
        labels: (B, H, W) int64.
        boundaries: (B, 1, H, W) uint8.
    """

    logits: Tensor
    boundary_logits: Tensor
    labels: Tensor
    boundaries: Tensor


def measure_losses(
    sides: Sequence[int],
    batch: int,
    device: str,
    precision: Precision,
    threads: int | None,
    repeats: int,
    compile: bool,
    out: Path | None,
    compare: Path | None,
) -> None:
    """Print the tables of ``gscnn bench losses``.

    Args:
        sides: height and width of the square maps.
        batch: number of images.
        device: where.
        precision: of the logits, as a network in this precision gives them.
        threads: None for as many as torch takes.
        repeats: number of timed rounds.
        compile: time compiled joint losses, too.
        out: JSON file to write.
        compare: JSON file to compare with.

    Raises:
        SettingError: a setting cannot be used.
    """
    check_repeats(repeats)
    if not sides or len(set(sides)) < len(sides):
        raise SettingError(f"sides are {list(sides)}: give each of them once, such as [192,384,768]")
    for side in sides:
        check_size((batch, side, side))
    where = chosen_device(device)
    chosen = checked_precision(precision, where)
    with torch_threads(threads):
        settings = {"sides": list(sides), "batch": batch, "compile": compile, "repeats": repeats}
        record = BenchRecord("losses", settings, where, chosen, out, compare)
        found: dict[int, dict[str, Timing]] = {}
        for side in sorted(sides):
            compiled = {variant: _joint(variant) for variant in get_args(Variant)} if compile else {}
            for loss in compiled.values():
                loss.compile(dynamic=False)  # by itself the compiler would make the second size a variable
            calls = _calls(made_maps(batch, side, where, chosen), where, chosen, compiled)
            flop = {name: counted_flop(call)[0] for name, call in calls.items() if "compiled" not in name}
            found[side] = time_side_by_side(calls, repeats, fresh=False, device=str(where))
            record.add(f"losses of {batch}x{CLASSES}x{side}x{side}, with gradient", found[side], BASELINE, flop)
        _show_per_pixel(record, found, {side: batch * side**2 for side in found})
        record.save()


def made_maps(batch: int, side: int, device: torch.device, precision: Precision) -> Given:
    """Labels of drawn scenes, and logits as of a network that is mostly right.

    Args:
        batch: number of scenes B.
        side: height and width.
        device: where they are to be.
        precision: precision of the network; its logits are float16 or bfloat16 if it is mixed.
    """
    labels = drawn_frames(batch, side, side, CLASSES)[1]
    boundaries = label_boundaries(labels, 2).unsqueeze(1)
    noise = torch.Generator().manual_seed(0)
    truth = F.one_hot(labels.long().where(labels != IGNORE_INDEX, 0), CLASSES).permute(0, 3, 1, 2).float()
    logits = 6 * F.avg_pool2d(truth, 5, 1, 2) + torch.randn(truth.shape, generator=noise)
    edges = 8 * F.avg_pool2d(boundaries.float(), 3, 1, 1) - 3
    boundary_logits = edges + torch.randn(edges.shape, generator=noise)
    given = [map_.to(device).contiguous() for map_ in (logits, boundary_logits)]
    if precision != "32-true":
        given = [map_.to(torch.bfloat16 if precision == "bf16-mixed" else torch.float16) for map_ in given]
    logits, boundary_logits = (map_.requires_grad_() for map_ in given)
    return Given(logits, boundary_logits, labels.long().to(device), boundaries.to(device))


def _joint(variant: Variant) -> GSCNNLoss:
    return GSCNNLoss(CLASSES, variant=variant)


def _calls(
    given: Given, device: torch.device, precision: Precision, compiled: Mapping[Variant, GSCNNLoss]
) -> dict[str, Callable[[], object]]:
    """The function of every row: a loss and its gradient."""
    logits, edges, labels, boundaries = given
    probability = edges.detach().float().sigmoid()
    void = labels == IGNORE_INDEX
    output = GSCNNOutput(logits, edges, ())

    def of(loss: GSCNNLoss) -> Tensor:
        return loss(output, labels, boundaries)["loss"]

    losses: dict[str, Callable[[], Tensor]] = {
        BASELINE: lambda: F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX),
        **{f"joint, {variant}": partial(of, _joint(variant)) for variant in get_args(Variant)},
        **{f"joint, {variant}, compiled": partial(of, loss) for variant, loss in compiled.items()},
    }
    for variant in get_args(Variant):
        ignored = void if variant == "paper" else None
        losses |= {
            f"segmentation, {variant}": partial(image_weighted_cross_entropy, logits, labels, variant=variant),
            f"boundary, {variant}": partial(boundary_bce, edges, boundaries, ignored, variant),
            f"regularizer, {variant}": partial(dual_task_loss, logits, labels, variant=variant),
            f"attention, {variant}": partial(boundary_attention_loss, logits, labels, probability, variant=variant),
        }

    def with_gradient(loss: Callable[[], Tensor]) -> None:
        logits.grad = edges.grad = None
        with autocast(device, precision):
            value = loss()
        value.backward()

    return {name: partial(with_gradient, loss) for name, loss in losses.items()}


def _show_per_pixel(record: BenchRecord, found: Mapping[int, Mapping[str, Timing]], pixels: Mapping[int, int]) -> None:
    """Print and keep the time per pixel at every side, and how it grows from the smallest to the largest."""
    smallest, largest = min(found), max(found)
    table = new_table("ns per pixel")
    table.caption, table.caption_justify = "growth: largest side divided by smallest", "left"
    table.add_column("what")
    for heading in (*map(str, found), "growth"):
        table.add_column(heading, justify="right")
    for name in found[smallest]:
        costs = {side: found[side][name].seconds / pixels[side] * 1e9 for side in found}
        growth = costs[largest] / costs[smallest]
        table.add_row(name, *(f"{cost:.1f}" for cost in costs.values()), f"{growth:.2f}")
        record.keep("per_pixel", name, {"ns": {str(side): cost for side, cost in costs.items()}, "growth": growth})
    say(table)
