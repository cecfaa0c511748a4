"""``gscnn data``: tools that take the same config as ``gscnn-fit`` and look at its data."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from gscnn_lightning.data.base import SegmentationDataModule
    from gscnn_lightning.data.check import SplitReport

_SHOWN = 20


def check(data: "SegmentationDataModule", splits: Sequence[Literal["train", "val", "test", "predict"]] = ()) -> None:
    """Read a whole data set and report what is in it and what is wrong with it.

    Exits with 0 if nothing is wrong, with 1 if something is, and with 2 if it could not be read at all.

    Examples:
      gscnn data check --config configs/camvid.yaml --data.root CamVid
      gscnn data check --data CityscapesDataModule --data.root cityscapes --splits [val]

    Args:
        data: the data module of the config.
        splits: what to read, all by default.
    """
    from gscnn_lightning.data.check import check_data

    with Progress(transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = bar.add_task(f"reading {split}", total=total)
            bar.update(tasks[split], completed=done)

        reports = check_data(data, tuple(splits) or ("train", "val", "test", "predict"), advance)
    console = Console()
    console.print(_frames_table(reports), _classes_table(reports, data.class_names))
    problems = [problem for report in reports for problem in report.problems]
    for problem in problems[:_SHOWN]:
        console.print(f"[red]problem:[/] {_plain(problem)}", soft_wrap=True, highlight=False)
    if problems:
        rest = f", the first {_SHOWN} of them above" if len(problems) > _SHOWN else ""
        console.print(f"{len(problems)} problems{rest}")
        sys.exit(1)
    console.print("no problems")


def preview(
    data: "SegmentationDataModule", out: Path = Path("data_preview.png"), samples: int = 12, epoch: int = 0
) -> None:
    """Write a contact sheet of training samples as the network gets them, with their boundaries.

    Examples:
      gscnn data preview --config configs/camvid.yaml --data.root CamVid
      gscnn data preview --config configs/camvid.yaml --data.scale [0.25,4] --out wide.png

    Args:
        data: the data module of the config.
        out: picture to write, PNG or JPEG by its suffix.
        samples: number of samples, those a training starts with.
        epoch: number of the epoch to begin with.
    """
    import cv2

    from gscnn_lightning.drawing import sample_sheet
    from gscnn_lightning.errors import SettingError

    if samples < 1:
        raise SettingError(f"samples must be 1 or more, got {samples}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg") or not out.parent.is_dir():
        raise SettingError(f"cannot write {out}: --out is a .png or .jpg file in a folder that exists")
    sheet = sample_sheet(_training_samples(data, samples, epoch), data.class_names, data.class_colors)
    cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    Console().print(f"{samples} training samples are drawn in {out}", soft_wrap=True)


def _training_samples(data: "SegmentationDataModule", count: int, epoch: int) -> list[Any]:
    from gscnn_lightning.drawing import TrainingSample

    loader = data.train_dataloader()
    sampler: Any = loader.sampler
    keys: list[Any] = []
    while len(keys) < count:  # an epoch may have fewer samples
        sampler.set_epoch(epoch)
        keys += sampler
        epoch += 1
    drawn = []
    for key in keys[:count]:
        sample = loader.dataset[key]
        labels = sample["mask"].numpy()
        photo = sample["image"].permute(1, 2, 0).numpy()
        drawn.append(TrainingSample(sample["name"], photo, labels, data.boundaries(labels)))
    return drawn


def _frames_table(reports: "Sequence[SplitReport]") -> Table:
    table = Table(title="frames", title_justify="left")
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


def _classes_table(reports: "Sequence[SplitReport]", names: Sequence[str]) -> Table:
    """Share of the labelled pixels, and number of label maps, of each class and split."""
    labelled = [report for report in reports if report.pixels.any()]
    table = Table(title="classes: % of labelled pixels (void: of all), label maps", title_justify="left")
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
        table.add_row(_plain(name), *cells, style="yellow" if absent and index < len(names) else None)
    return table


def _plain(text: str) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape

    return escape(text)


TOOLS: dict[str, Callable[..., None]] = {"check": check, "preview": preview}


def main(args: Sequence[str]) -> None:
    """Run ``gscnn data`` with the arguments after these two words.

    Args:
        args: name of the tool, its settings, and those of ``gscnn-fit``.
    """
    from gscnn_lightning.data_cli import DataCLI  # imports Lightning

    DataCLI(f"gscnn data {args[0]}", TOOLS[args[0]], list(args[1:]))
