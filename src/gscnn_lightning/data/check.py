"""Reading a whole data set before training on it: what is in it, and what is wrong with it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.ahead import results_in_order
from gscnn_lightning.data.base import SegmentationDataModule, Split, nothing_but_void
from gscnn_lightning.data.pictures import told_once
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError
from gscnn_lightning.terminal import new_table

Size = tuple[int, int]
_NAMED = 8
Counts = npt.NDArray[np.int64]


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        split: its name.
        found: frames that there are, readable or not.
        sizes: number of frames per (height, width).
        pixels: (K + 1,) pixels per class, void last.
        images: (K + 1,) label maps with at least one pixel of the class, void last.
        unlabelled: frames without a label map.
        void: frames whose label map is nothing but void.
        problems: what keeps the split from being used, one message each.
        notes: what is converted or left out when frames are read, one message each.
        names: frames by the digest of their pictures.
    """

    split: Split
    pixels: Counts
    images: Counts
    found: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    unlabelled: int = 0
    void: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Number of frames that could be read."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class _Frame:
    name: str
    size: Size
    digest: bytes
    counts: Counts | None
    problem: str | None = None
    converted: Sequence[str] = ()


def check_data(
    data: SegmentationDataModule,
    splits: Sequence[Split] = ("train", "val", "test", "predict"),
    progress: Callable[[Split, int, int], object] = lambda split, done, total: None,
) -> list[SplitReport]:
    """Read every frame of a data module, in parallel.

    Args:
        data: the data module; its `setup` need not have been called.
        splits: what to read. Splits that are the same frames as an earlier one are left out.
        progress: called after every frame with the split, the number of frames read and the number of all.

    Returns:
        One report per split. Problems have the words in which training would refuse the data, beside pictures of one
        colour and pictures that are in two splits, which training does not see. A problem of several splits is that of
        the first.
    """
    reports: list[SplitReport] = []
    told: set[str] = set()
    sources: list[tuple[list[str], list[str]]] = []
    for split in splits:
        report = SplitReport(split, np.zeros(data.num_classes + 1, np.int64), np.zeros(data.num_classes + 1, np.int64))
        try:
            source = data.source(split)
        except DataError as error:
            report.problems += [str(error)] if str(error) not in told else []
            told.add(str(error))
            reports.append(report)
            continue
        # Two splits without frames may be so for different reasons.
        frames = [source.identity(index) for index in range(len(source))], list(source.problems)
        if frames not in sources:
            sources.append(frames)
            _read(source, report, progress)
            reports.append(report)
    _report_duplicates(reports)
    for report in reports:
        _report_classes(report, data.class_names)
    return reports


def _read(source: Source, report: SplitReport, progress: Callable[[Split, int, int], object]) -> None:
    converted: list[tuple[str, Sequence[str]]] = []
    report.problems += source.problems
    report.found = len(source)
    if not len(source) and not report.problems:
        report.problems.append(f"the {report.split} split is empty: check its path and settings")
    read = partial(_read_frame, source, num_classes=len(report.pixels) - 1)
    for done, frame in enumerate(results_in_order(read, range(len(source)), os.cpu_count() or 1), start=1):
        _add(frame, report)
        converted.append((frame.name, frame.converted))
        progress(report.split, done, len(source))
    report.notes = [*source.remarks, *told_once(converted)]
    labelled = report.frames - report.unlabelled
    if labelled and report.void == labelled and report.split != "predict":
        report.problems.append(nothing_but_void(report.split, labelled))


def _read_frame(source: Source, index: int, num_classes: int) -> _Frame:
    name = source.name(index)
    try:
        converted = source.check_frame(index) or ()  # nothing from a source whose own method gives nothing
        image, mask = source.load(index)
    except DataError as error:
        return _Frame(name, (0, 0), b"", None, str(error))
    problem = None
    if (image == image[0, 0]).all():
        problem = f"{name} (sample {index}) is of one colour all over: replace it, or leave it out"
    counts = None
    if mask is not None:
        histogram = np.bincount(mask.ravel(), minlength=256)
        counts = np.append(histogram[:num_classes], histogram[IGNORE_INDEX])
    digest = hashlib.blake2b(image.tobytes(), digest_size=16)
    digest.update(str(image.shape).encode())
    return _Frame(name, image.shape[:2], digest.digest(), counts, problem, converted)


def _add(frame: _Frame, report: SplitReport) -> None:
    if frame.problem is not None:
        report.problems.append(frame.problem)
    if not frame.digest:
        return
    report.sizes[frame.size] += 1
    report.names[frame.digest] = frame.name
    if frame.counts is None:
        report.unlabelled += 1
        return
    report.pixels += frame.counts
    report.images += frame.counts > 0
    report.void += not frame.counts[:-1].any()


def _report_duplicates(reports: Sequence[SplitReport]) -> None:
    """Add a problem to the later of two splits that share a picture."""
    seen: defaultdict[bytes, list[str]] = defaultdict(list)
    for report in reports:
        for digest, name in report.names.items():
            for other in seen[digest]:
                report.problems.append(f"{report.split} {name} is the same picture as {other}: remove one of them")
        for digest, name in report.names.items():
            seen[digest].append(f"{report.split} {name}")


def _report_classes(report: SplitReport, names: Sequence[str]) -> None:
    """Add a note on classes that no label map of a split has."""
    absent = [name for name, images in zip(names, report.images, strict=False) if not images]
    if not absent or not report.pixels[:-1].any():
        return
    more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
    they = ("it", "its") if len(absent) == 1 else ("they", "their")
    follows = f"{they[0]} will have no scores, nor a part in the means"
    if report.split == "train":
        follows = f"{they[0]} cannot be learnt. Check {they[1]} values in the class table against those in the maps"
    report.notes.append(f"no label map has {', '.join(absent[:_NAMED])}{more}: {follows}")


def training_samples(
    data: SegmentationDataModule, count: int, epoch: int = 0
) -> list[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """The samples that a training starts with.

    Args:
        data: the data module.
        count: number of samples.
        epoch: number of the epoch to begin with.

    Returns:
        Name, photo (H, W, 3) uint8 RGB and train ids (H, W) of each.
    """
    loader = data.train_dataloader()
    sampler: Any = loader.sampler
    keys: list[Any] = []
    while len(keys) < count:  # an epoch may have fewer samples
        sampler.set_epoch(epoch)
        keys += sampler
        epoch += 1
    samples = [loader.dataset[key] for key in keys[:count]]
    return [(s["name"], s["image"].permute(1, 2, 0).numpy(), s["mask"].numpy()) for s in samples]


def frames_table(reports: Sequence[SplitReport]) -> Table:
    """Frames, sizes and problems of each split."""
    table = new_table("frames")
    table.add_column("split")
    for heading in ("read", "unlabelled", "all void", "problems"):
        table.add_column(heading, justify="right")
    table.add_column("width x height")
    for report in reports:
        sizes = [f"{w}x{h}" + (f" ({n})" if len(report.sizes) > 1 else "") for (h, w), n in report.sizes.most_common(4)]
        more = f" and {len(report.sizes) - 4} more" if len(report.sizes) > 4 else ""
        counts = (report.frames, report.unlabelled, report.void, len(report.problems))
        table.add_row(report.split, *map(str, counts), ", ".join(sizes) + more)
    return table


def classes_table(reports: Sequence[SplitReport], names: Sequence[str]) -> Table:
    """Share of the labelled pixels, and number of label maps, of each class and split."""
    labelled = [report for report in reports if report.pixels.any()]
    table = new_table("classes: % of labelled pixels (void: of all), label maps")
    table.add_column("class")
    for report in labelled:
        table.add_column(f"{report.split} %", justify="right")
        table.add_column("maps", justify="right")
    for index, name in enumerate((*names, "void")):
        cells = []
        for report in labelled:
            total = report.pixels.sum() if name == "void" else report.pixels[:-1].sum()
            cells += [f"{100 * report.pixels[index] / max(total, 1):.2f}", str(report.images[index])]
        absent = any(report.split == "train" and not report.images[index] for report in labelled)
        table.add_row(Text(name), *cells, style="yellow" if absent and index < len(names) else None)
    return table
