"""A run as it was left in its folder, read into plain data; whatever is missing stays empty."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from gscnn_lightning.drawing.plots import Series
from gscnn_lightning.errors import SettingError
from gscnn_lightning.run_folder import RunFolder, find_run
from gscnn_lightning.run_folder.metrics_csv import read_metrics
from gscnn_lightning.run_folder.pictures import PictureFolder, folder_name, picture_folders
from gscnn_lightning.run_folder.score_files import read_confusion, read_file, read_image_scores, read_scores
from gscnn_lightning.scores import ImageScores, Scores, worst_images


@dataclass
class Run:
    """A run as far as it is there.

    Attributes:
        folder: where it lies.
        label: what tells it from the other runs of a report.
        series: steps and values by logged name, such as "val/miou".
        steps_per_epoch: optimizer steps.
        stages: scores by "val" and "test", without those of images and pairs of classes.
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

    folder: RunFolder
    label: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    steps_per_epoch: float = 1.0
    stages: dict[str, Scores] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    confusion: npt.NDArray[np.int64] | None = None
    image_scores: list[ImageScores] = field(default_factory=list)
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
        ranks = worst_images(self.image_scores)
        named = [score.name for score in ranks if folder_name(0, score.name).partition("_")[2] == folder.name]
        # Several cities may have frames of one name.
        return ranks[folder.number].name if len(named) > 1 and folder.number < len(ranks) else next(iter(named), None)


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
                f"{known[0].folder.path} has {first}, {run.folder.path} has {other}: report runs with the same classes "
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
    folder = find_run(directory)
    run = Run(folder, label=directory.resolve().name)
    if folder.metrics.is_file():
        run.series, run.steps_per_epoch = read_metrics(folder)
    run.stages = {stage: read_scores(folder, stage) for stage in ("val", "test") if folder.scores(stage).is_file()}
    if folder.classes.is_file():
        run.class_names, run.class_colors = read_file(folder.classes, _classes)
    elif run.stages:
        run.class_names = next(iter(run.stages.values())).class_names
    if folder.config.is_file():
        run.config_text, run.config = read_file(folder.config, _config)
    if folder.environment.is_file():
        run.environment = read_file(folder.environment, lambda path: dict(json.loads(path.read_text(encoding="utf-8"))))
    run.confusion = read_confusion(folder, run.class_names)
    run.image_scores = read_image_scores(folder)
    for epoch, path in folder.pictured_epochs.items():
        if folders := picture_folders(path):
            run.pictures[epoch] = folders
    run.worst = picture_folders(folder.worst_pictures)
    return run


def _classes(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    record = json.loads(path.read_text(encoding="utf-8"))
    colors = tuple((int(r), int(g), int(b)) for r, g, b in record["colors"])
    names = tuple(str(name) for name in record["names"])
    if len(names) != len(colors):
        raise ValueError(f"{len(names)} names, {len(colors)} colors")
    return names, colors


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
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
