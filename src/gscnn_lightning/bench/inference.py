"""``gscnn bench inference``: logits of one image, beside those of the control, and of a plain DeepLabV3+."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gscnn_lightning.bench import check_repeats, time_side_by_side
from gscnn_lightning.bench.counts import counted_flop
from gscnn_lightning.bench.machine import torch_threads
from gscnn_lightning.bench.record import BenchRecord
from gscnn_lightning.bench.subjects import (
    CONTROL,
    PEER,
    TWO_STREAM,
    Subject,
    check_size,
    chosen_peer,
    chosen_subject,
    drawn_frames,
)

Formats = Literal["config", "contiguous", "channels_last", "both"]


def measure_inference(
    others: Sequence[str],
    size: tuple[int, int],
    formats: Formats,
    device: str,
    precision: str,
    threads: int | None,
    repeats: int,
    out: Path | None,
    compare: Path | None,
) -> None:
    """Print the table of ``gscnn bench inference``.

    Args:
        others: arguments of ``gscnn-fit fit``; the config camvid if they name none.
        size: height and width of the image.
        formats: memory formats of weights and image.
        device: where.
        precision: "config" for the config's.
        threads: None for as many as torch takes.
        repeats: number of timed rounds.
        out: JSON file to write.
        compare: JSON file to compare with.

    Raises:
        SettingError: a setting cannot be used.
    """
    check_repeats(repeats)
    check_size(size)
    subject = chosen_subject(others, "camvid", device, precision)
    with torch_threads(threads):
        settings = {"arguments": subject.arguments, "size": size, "formats": formats, "repeats": repeats}
        record = BenchRecord("inference", settings, subject.device, subject.precision, out, compare)
        image = drawn_frames(1, *size, subject.data.num_classes)[0].to(subject.device)
        calls = _calls(subject, image, formats, record)
        flop = {name: counted_flop(call)[0] for name, call in calls.items()}
        timings = time_side_by_side(calls, repeats, fresh=False, device=str(subject.device))
        backbone = subject.settings["model"]["backbone"]
        baseline = next(name for name in calls if name.startswith(CONTROL))
        record.add(f"logits of one image, {backbone}, {size[0]}x{size[1]}", timings, baseline, flop)
        record.save()


def _calls(subject: Subject, image: Tensor, formats: Formats, record: BenchRecord) -> dict[str, Callable[[], object]]:
    """The function of every row."""
    layouts: dict[str, dict[str, bool]] = {"": {}}  # as in the config
    if formats != "config":
        chosen = ("contiguous", "channels_last") if formats == "both" else (formats,)
        layouts = {f", {name}": {"channels_last": name == "channels_last"} for name in chosen}
    calls: dict[str, Callable[[], object]] = {}
    for suffix, layout in layouts.items():
        for name, stream in ((TWO_STREAM, True), (CONTROL, False)):
            calls[name + suffix] = partial(_logits, subject, subject.task(shape_stream=stream, **layout), image)
        peer = chosen_peer(subject.task(shape_stream=False, **layout), image)
        if isinstance(peer, str):
            record.remark("peer", peer, peer)
        else:
            calls[PEER + suffix] = partial(_logits, subject, peer, image)
    for call in calls.values():
        call.args[1].eval()  # type: ignore[attr-defined]
    return calls


def _logits(subject: Subject, network: torch.nn.Module, image: Tensor) -> object:
    with torch.inference_mode(), subject.autocast():
        return network(image)
