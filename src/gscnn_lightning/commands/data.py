"""``gscnn data``: commands that take the same config as ``gscnn-fit`` and look at its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_SHOWN = 20


def check(splits: Sequence[Literal["train", "val", "test", "predict"]] = (), others: Sequence[str] = ()) -> int:
    """Read a whole data set and report what is in it and what is wrong with it.

    Exits with 0 if nothing is wrong, with 1 if something is, and with 2 if there was nothing to read. What is converted
    or left out in reading, such as 16 bits or transparency, is a note, not a problem.

    Examples:
      gscnn data check --config camvid --data.root CamVid
      gscnn data check --data CityscapesDataModule --data.root cityscapes --splits [val]

    Args:
        splits: what to read, all by default.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Returns:
        Exit code.
    """
    from gscnn_lightning.data.check import check_data, classes_table, frames_table
    from gscnn_lightning.errors import DataError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.terminal import progress, say

    data = data_module(others)
    with progress(None, "reading") as move:
        reports = check_data(
            data,
            tuple(splits) or ("train", "val", "test", "predict"),
            lambda split, done, total: move(done, total, f"reading {split}"),
        )
    problems = [problem for report in reports for problem in report.problems]
    if not any(report.found for report in reports):
        raise DataError("; ".join(problems))
    say(frames_table(reports))
    say(classes_table(reports, data.class_names))
    for report in reports:
        for note in report.notes:
            say(f"note: {report.split}: {note}")
    for problem in problems[:_SHOWN]:
        say(f"problem: {problem}")
    if problems:
        rest = f", the first {_SHOWN} of them above" if len(problems) > _SHOWN else ""
        say(f"{len(problems)} problem{'s' * (len(problems) > 1)}{rest}")
        return 1
    say("no problems")
    return 0


def preview(
    out: Path = Path("data_preview.png"), samples: int = 12, epoch: int = 0, others: Sequence[str] = ()
) -> None:
    """Draw training samples as the network gets them, with their boundaries, on a contact sheet.

    Examples:
      gscnn data preview --config camvid --data.root CamVid
      gscnn data preview --config camvid --data.scale [0.25,4] --out wide.png

    Args:
        out: picture to write, PNG or JPEG by its suffix.
        samples: number of samples, those a training starts with.
        epoch: number of the epoch to begin with.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.
    """
    from gscnn_lightning.data.check import training_samples
    from gscnn_lightning.drawing.files import write_picture
    from gscnn_lightning.drawing.sheets import TrainingSample, sample_sheet
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.terminal import say

    if samples < 1:
        raise SettingError(f"samples must be 1 or more, got {samples}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg") or not out.absolute().parent.is_dir():
        raise SettingError(f"cannot write {out}: --out is a .png or .jpg file in a folder that exists")
    data = data_module(others)
    drawn = [
        TrainingSample(name, photo, labels, data.boundaries(labels))
        for name, photo, labels in training_samples(data, samples, epoch)
    ]
    write_picture(out, sample_sheet(drawn, data.class_names, data.class_colors), overwrite=True)
    say(f"{samples} training samples are drawn in {out}")
