"""What a run has left in its directory, read into plain data; whatever is missing stays empty."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from gscnn_lightning.curves import Series, read_metrics
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.reports import folder_name, loosest_boundary_score

_T = TypeVar("_T")


@dataclass(frozen=True)
class StageScores:
    """Scores of a validation or a test, in [0, 1]; None where there is nothing to score.

    Attributes:
        epoch: counted from 1; None outside of a training.
        means: score by name, such as "miou".
        classes: {class name: {score name: value}}.
        training_seconds: None if it was not recorded.
    """

    epoch: int | None
    means: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]
    training_seconds: float | None = None


@dataclass(frozen=True)
class ImageScore:
    """Scores of one validation image.

    Attributes:
        name: of the sample.
        index: place in the validation set.
        scores: score by name, in [0, 1], NaN where there is nothing to score.
    """

    name: str
    index: int
    scores: dict[str, float]


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one image.

    Attributes:
        path: folder with photo.jpg, labels.png, prediction.png, ...
        number: place in the validation set, or rank among the worst.
        name: of the sample, made safe for file names.
    """

    path: Path
    number: int
    name: str


@dataclass
class Run:
    """A run as far as it is there.

    Attributes:
        directory: where it lies.
        label: what tells it from the other runs of a report.
        series: steps and values by logged name, such as "val/miou".
        steps_per_epoch: optimizer steps.
        stages: scores by "val" and "test".
        class_names: in the order of the train ids; empty if no file names them.
        class_colors: RGB colour of each, 0 to 255; empty if ``classes.json`` is missing.
        config: settings by dotted name.
        config_text: ``config.yaml`` as it is.
        environment: versions, processor, command, ...
        confusion: (K, K) pixels of the true class (row) that were predicted as a class (column), or None.
        image_scores: one per validation image.
        pictures: pictures of the fixed images by epoch, counted from 1.
        worst: pictures of the images with the lowest boundary F, the worst first.
    """

    directory: Path
    label: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    steps_per_epoch: float = 1.0
    stages: dict[str, StageScores] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    confusion: npt.NDArray[np.int64] | None = None
    image_scores: list[ImageScore] = field(default_factory=list)
    pictures: dict[int, list[PictureFolder]] = field(default_factory=dict)
    worst: list[PictureFolder] = field(default_factory=list)

    def sample_name(self, folder: PictureFolder, ranked: bool) -> str | None:
        """Name of the sample whose pictures are in a folder; None if there are no scores of images.

        Args:
            folder: one of ``pictures`` or ``worst``.
            ranked: whether its number is a rank, not a place in the validation set.
        """
        if not ranked:
            return next((score.name for score in self.image_scores if score.index == folder.number), None)
        ranks = self.worst_scores()
        named = [score.name for score in ranks if folder_name(0, score.name).partition("_")[2] == folder.name]
        # Several cities may have frames of one name.
        return ranks[folder.number].name if len(named) > 1 and folder.number < len(ranks) else next(iter(named), None)

    def worst_scores(self) -> list[ImageScore]:
        """Images by boundary F at the largest tolerance, the worst first."""
        if not self.image_scores:
            return []
        key = loosest_boundary_score(self.image_scores[0].scores)
        known = [score for score in self.image_scores if key and math.isfinite(score.scores[key])]
        return sorted(known, key=lambda score: score.scores[key or ""])


def load_runs(directories: Sequence[Path], names: Sequence[str] = ()) -> list[Run]:
    """Runs that are to be shown side by side.

    Args:
        directories: one or more run directories.
        names: what to call them; by default the parts of their paths in which they differ.

    Raises:
        SettingError: a directory is given twice or is no run, the runs have other classes, or the number of names is
            not that of the runs.
        DataError: a file of a run is damaged.
    """
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise SettingError(f"a run is given twice: {', '.join(map(str, directories))}")
    if names and (len(names) != len(directories) or len(set(names)) < len(names)):
        raise SettingError(f"names are {', '.join(names)}: give {len(directories)} different ones, one for each run")
    runs = [load_run(directory) for directory in directories]
    for run, label in zip(runs, names or _labels(resolved), strict=True):
        run.label = label
    known = [run for run in runs if run.class_names]
    for run in known[1:]:
        if run.class_names != known[0].class_names:
            first, other = (
                f"{len(r.class_names)} classes {', '.join(r.class_names[:3])}, ..." for r in (known[0], run)
            )
            raise SettingError(
                f"{known[0].directory} has {first}, {run.directory} has {other}: report runs with the same classes "
                "together, others apart"
            )
    return runs


def load_run(directory: Path) -> Run:
    """A run from its directory.

    Args:
        directory: folder that ``gscnn-fit`` has made, such as runs/camvid/version_0.

    Raises:
        SettingError: it is no run directory, or holds no metrics.
        DataError: one of its files is damaged.
    """
    if not directory.is_dir():
        raise SettingError(f"{directory} is no directory: give the folder of a run, such as runs/camvid/version_0")
    files = {stage: directory / f"scores_{stage}.json" for stage in ("val", "test")}
    metrics = directory / "metrics.csv"
    if not metrics.is_file() and not any(path.is_file() for path in files.values()):
        raise SettingError(_no_run(directory))
    run = Run(directory, label=directory.resolve().name)
    if metrics.is_file():
        run.series, run.steps_per_epoch = read_metrics(metrics)
    run.stages = {stage: _read(path, _stage_scores) for stage, path in files.items() if path.is_file()}
    if (directory / "classes.json").is_file():
        run.class_names, run.class_colors = _read(directory / "classes.json", _classes)
    elif run.stages:
        run.class_names = tuple(next(iter(run.stages.values())).classes)
    if (directory / "config.yaml").is_file():
        run.config_text, run.config = _read(directory / "config.yaml", _config)
    if (directory / "environment.json").is_file():
        run.environment = _read(directory / "environment.json", lambda path: dict(json.loads(path.read_text())))
    if (directory / "confusion_matrix.csv").is_file():
        run.confusion = _read(directory / "confusion_matrix.csv", lambda path: _confusion(path, run.class_names))
    if (directory / "image_scores.csv").is_file():
        run.image_scores = _read(directory / "image_scores.csv", _image_scores)
    for path in sorted((directory / "pictures").glob("epoch_*")):
        if path.is_dir() and path.name[6:].isdigit() and (folders := _folders(path)):
            run.pictures[int(path.name[6:])] = folders
    run.worst = _folders(directory / "pictures" / "worst")
    return run


def _no_run(directory: Path) -> str:
    inside = sorted(path.parent for path in directory.glob("*/metrics.csv"))
    inside += sorted(path.parent for path in directory.glob("*/*/metrics.csv"))
    hint = f"did you mean {inside[-1]}?" if inside else "give the folder of a run, such as runs/camvid/version_0"
    return f"{directory} is no run: it has neither metrics.csv nor scores_val.json; {hint}"


def _read(path: Path, reader: Callable[[Path], _T]) -> _T:
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, csv.Error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path} is damaged ({reason}): remove it to make a report without it") from error


def _stage_scores(path: Path) -> StageScores:
    record = json.loads(path.read_text())
    seconds, epoch = record.get("training_seconds"), record.get("epoch")
    return StageScores(
        epoch=None if epoch is None else int(epoch) + 1,
        means=_floats(record["means"]),
        classes={str(name): _floats(values) for name, values in record["classes"].items()},
        training_seconds=None if seconds is None else float(seconds),
    )


def _floats(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(name): None if value is None else float(value) for name, value in values.items()}


def _classes(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    record = json.loads(path.read_text())
    colors = tuple((int(r), int(g), int(b)) for r, g, b in record["colors"])
    names = tuple(str(name) for name in record["names"])
    if len(names) != len(colors):
        raise ValueError(f"{len(names)} names, {len(colors)} colors")
    return names, colors


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    text = path.read_text()
    return text, dict(_flattened(yaml.safe_load(text) or {}))


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings by dotted name; ``init_args`` is left out, as on the command line."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        name = prefix.removesuffix(".") if key == "init_args" and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat += _flattened(value, f"{name}.")
        else:
            flat.append((name, value))
    return flat


def _confusion(path: Path, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    with path.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    if header[1:] != [row[0] for row in rows] or (class_names and tuple(header[1:]) != tuple(class_names)):
        raise ValueError("its rows and columns are not the classes of the run")
    return np.array([[int(float(cell)) for cell in row[1:]] for row in rows], np.int64).reshape(len(rows), len(rows))


def _image_scores(path: Path) -> list[ImageScore]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        ImageScore(
            row["name"],
            int(row["index"]),
            {key: float(value or "nan") for key, value in row.items() if key not in ("name", "index")},
        )
        for row in rows
    ]


def _folders(path: Path) -> list[PictureFolder]:
    """Folders NUMBER_NAME with pictures, by number."""
    found = []
    for folder in path.glob("*_*"):
        number, _, name = folder.name.partition("_")
        if folder.is_dir() and number.isdigit():
            found.append(PictureFolder(folder, int(number), name))
    return sorted(found, key=lambda item: (item.number, item.name))


def _labels(directories: Sequence[Path]) -> list[str]:
    """The parts of the paths in which they differ; the last two parts of a single path."""
    if len(directories) == 1:
        return ["/".join(directories[0].parts[-2:])]
    parts = [list(directory.parts) for directory in directories]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]
