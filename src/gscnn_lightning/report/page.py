"""The page: what the template shows, worked out from the runs."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from gscnn_lightning.classes import colors_of
from gscnn_lightning.report.charts import Chart, as_line, draw
from gscnn_lightning.report.gallery import LAYERS, fixed_gallery, percent, plot_uri, worst_gallery
from gscnn_lightning.run_folder.run import Run
from gscnn_lightning.score_names import (
    ECE,
    ECE_BOUNDARY,
    IOU,
    class_iou_name,
    class_of_iou,
    is_loss,
    is_lower_better,
    is_share,
    loss_order,
    loss_title,
    main_scores,
    mean_name,
    score_headings,
    score_order,
    score_title,
)
from gscnn_lightning.scores import ImageScores, worst_images
from gscnn_lightning.terminal import clock
from gscnn_lightning.version import __version__

GENERATOR = "gscnn report"
_HARDEST = 6
_RATE = "lr"
_FACTS = ("torch", "code", "precision")


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Attributes:
        value: in percent, None if there is none.
        text: as shown.
        change: whether it is a difference to the first run.
    """

    value: float | None
    text: str
    change: bool = False


@dataclass(frozen=True)
class Headline:
    """A run in a few numbers.

    Attributes:
        scores: name, value and difference to the first run, the mean IoU first.
        facts: label and value.
    """

    scores: list[tuple[str, Cell, Cell | None]]
    facts: list[tuple[str, str]]
    missing: list[str]


@dataclass(frozen=True)
class ClassRow:
    """A class, or the mean of all, with its cells in the order of the columns."""

    name: str
    color: str
    cells: list[Cell]


@dataclass(frozen=True)
class ClassTable:
    """Scores of the classes.

    Attributes:
        title: of which frames.
        groups: heading of each score; below it are the values of the runs, then the differences to the first.
        rows: one per class.
        mean: of all classes.
        notes: what is missing.
    """

    title: str
    groups: list[str]
    rows: list[ClassRow]
    mean: ClassRow
    notes: list[str]


@dataclass(frozen=True)
class Share:
    """A share of the pixels of a class."""

    name: str
    color: str
    percent: float


@dataclass(frozen=True)
class HardClass:
    """A class with a low IoU: per run the IoU and what its pixels are taken for (empty if that is not known)."""

    name: str
    color: str
    runs: list[tuple[str, list[Share]]]


@dataclass(frozen=True)
class Reliability:
    """How often a run is right by how sure it is: number of the run, name and value of its errors, the plot."""

    run: int
    errors: list[tuple[str, str]]
    src: str


@dataclass(frozen=True)
class SettingRow:
    """A setting: one value per run, and whether they differ."""

    name: str
    values: list[str]
    differs: bool


def render_report(runs: Sequence[Run], width: int = 640) -> str:
    """A report as one HTML document that loads nothing.

    Args:
        runs: one or more, as `load_runs` gives them; the others are compared with the first.
        width: pictures are at most this wide, in pixels.
    """
    environment = Environment(
        loader=PackageLoader("gscnn_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("report.html")
    names = next((run.class_names for run in runs if run.class_names), ())
    colors = _class_colors(runs, names)
    environment_rows = _setting_rows([run.environment for run in runs])
    setting_rows = _setting_rows([run.config for run in runs])
    return template.render(
        generator=GENERATOR,
        version=__version__,
        written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        style=_own_text(environment, "report.css"),
        script=_own_text(environment, "report.js"),
        runs=runs,
        headlines=[_headline(run, runs[0]) for run in runs],
        galleries=[
            fixed_gallery(runs, _score_texts, width),
            worst_gallery(runs, _score_texts, width),
        ],
        legend=list(zip(names, colors, strict=True)),
        layers=LAYERS,
        worst_images=[_worst_images(run) for run in runs],
        chart_groups=_chart_groups(runs),
        tables=[table for stage in ("val", "test") if (table := _class_table(runs, stage, names, colors))],
        hardest=_hardest(runs, names, colors),
        matrices=[_matrix(run) for run in runs],
        reliabilities=_reliabilities(runs),
        settings=setting_rows,
        differing=[row for row in setting_rows if row.differs],
        environment=environment_rows,
    )


def is_report(path: Path) -> bool:
    """Whether a file is a report that `render_report` has made."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR} '.encode() in file.read(1024)


def _class_colors(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Colours of the classes in CSS."""
    colors = next((run.class_colors for run in runs if run.class_colors), None)
    if colors is None:
        colors = colors_of(names) if names else ()
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]


def _own_text(environment: Environment, name: str) -> Markup:
    """A file of the package, which is put into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _headline(run: Run, first: Run) -> Headline:
    stage = run.stages.get("val") or run.stages.get("test")
    other = first.stages.get("val") or first.stages.get("test")
    scores: list[tuple[str, Cell, Cell | None]] = []
    for name in main_scores(stage.means) if stage else ():
        value = stage.means[name] if stage else None
        change = _change(value, other.means.get(name) if other else None) if run is not first else None
        scores.append((score_title(name), _cell(value), change))
    facts = []
    if stage and stage.epoch:
        epochs = run.series.get("epoch")
        total = f" of {int(epochs[1].max()) + 1}" if epochs is not None else ""
        facts.append(("best epoch", f"{stage.epoch}{total}"))
    if stage and stage.training_seconds is not None:
        unit = "h" if round(stage.training_seconds) >= 3600 else "min"
        facts.append(("training time", f"{clock(stage.training_seconds)} {unit}"))
    speed = next((series for name, series in run.series.items() if "images_per" in name), None)
    if speed is not None:
        facts.append(("images/s", f"{float(np.nanmedian(speed[1])):.1f}"))
    facts += [(name, str(run.environment[name])) for name in _FACTS if run.environment.get(name) is not None]
    files = (
        (run.folder.scores("val"), "val" in run.stages),
        (run.folder.metrics, run.series),
        (run.folder.config, run.config),
        (run.folder.environment, run.environment),
        (run.folder.classes, run.class_colors),
    )
    missing = [path.name for path, content in files if not content]
    return Headline(scores, facts, missing)


def _cell(value: float | None) -> Cell:
    known = value is not None and math.isfinite(value)
    return Cell(100 * value if known and value is not None else None, percent(value))


def _change(value: float | None, first: float | None) -> Cell:
    if value is None or first is None or not math.isfinite(value - first):
        return Cell(None, "–", change=True)
    return Cell(100 * (value - first), f"{100 * (value - first):+.1f}".replace("-", "\N{MINUS SIGN}"), change=True)


def _score_texts(score: ImageScores) -> list[tuple[str, str]]:
    return [(score_title(name), percent(value)) for name, value in score.values.items()]


def _worst_images(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Names and scores of the images with the lowest boundary F."""
    return [(score.name, _score_texts(score)) for score in worst_images(run.image_scores)[:12]]


def _chart_groups(runs: Sequence[Run]) -> list[tuple[str, list[Chart]]]:
    """Headings and charts: scores, losses, classes, and whatever else was logged."""
    quantities: dict[str, list[Any]] = {}
    classes = {class_iou_name(name): name for run in runs for name in run.class_names}
    for number, run in enumerate(runs):
        for name in sorted(run.series):
            stage, _, quantity = name.partition("/") if "/" in name else ("", "", name)
            repeated = name.endswith("_epoch") and name.removesuffix("_epoch") in run.series
            repeated = repeated and class_of_iou(quantity) is None  # a class may end so, too
            if name == "epoch" or stage == "test" or repeated or not np.isfinite(run.series[name][1]).any():
                continue
            scale = 100.0 if is_share(quantity) else 1.0
            label = run.label + {"train": ", training", "val": ", validation"}.get(stage, "") * _has_both(
                runs, quantity
            )
            line = as_line(number, label, run.series[name], run.steps_per_epoch, scale, noisy=is_loss(quantity))
            line.dashed = stage == "val" and f"train/{quantity}" in run.series
            quantities.setdefault(quantity, []).append(line)
    groups: dict[str, list[Chart]] = {"Scores": [], "Losses": [], "IoU of the classes": [], "Other": []}
    for quantity in sorted(quantities, key=_quantity_order):
        share = is_share(quantity)
        group = "Losses" if is_loss(quantity) else "Scores" if share else "Other"
        group = "IoU of the classes" if class_of_iou(quantity) else group
        loss = group == "Losses"
        unit = "%" if share else "loss" if loss else ""
        best = share and not is_lower_better(quantity)
        chart = draw(
            classes.get(quantity) or _quantity_name(quantity), unit, quantities[quantity], best=best, may_be_log=loss
        )
        groups[group].append(chart)
    return [(title, charts) for title, charts in groups.items() if charts]


def _has_both(runs: Sequence[Run], quantity: str) -> bool:
    return any(f"train/{quantity}" in run.series and f"val/{quantity}" in run.series for run in runs)


def _quantity_order(quantity: str) -> tuple[int, tuple[float, ...], str]:
    """Losses and learning rate in their order, scores in theirs, the others by name."""
    if is_loss(quantity):
        return 0, (loss_order(quantity)[0],), quantity
    return 1 if quantity == _RATE else 2, score_order(quantity)[:2], quantity


def _quantity_name(quantity: str) -> str:
    if class_name := class_of_iou(quantity):
        return class_name
    name = "learning rate" if quantity == _RATE else loss_title(quantity) if is_loss(quantity) else ""
    name = name or score_title(quantity)
    name = quantity.replace("_", " ") if name == quantity else name
    return name[:1].upper() + name[1:]


def _class_table(runs: Sequence[Run], stage: str, names: Sequence[str], colors: Sequence[str]) -> ClassTable | None:
    stages = [run.stages.get(stage) for run in runs]
    keys = list(dict.fromkeys(key for s in stages if s for key in s.classes))
    if not keys:
        return None

    def cells(values: list[float | None]) -> list[Cell]:
        return [_cell(value) for value in values] + [_change(value, values[0]) for value in values[1:]]

    rows = []
    for name, color in zip(names, colors, strict=True):
        per_key = [[s.of_class(name).get(key) if s else None for s in stages] for key in keys]
        rows.append(ClassRow(name, color, list(chain.from_iterable(map(cells, per_key)))))
    means = [[s.means.get(mean_name(key)) if s else None for s in stages] for key in keys]
    mean = ClassRow("mean", "", list(chain.from_iterable(map(cells, means))))
    missing = [run for run, s in zip(runs, stages, strict=True) if s is None]
    notes = [f"{run.label} has no {run.folder.scores(stage).name}." for run in missing]
    return ClassTable({"val": "Validation", "test": "Test"}[stage], score_headings(keys), rows, mean, notes)


def _hardest(runs: Sequence[Run], names: Sequence[str], colors: Sequence[str]) -> list[HardClass]:
    """The classes with the lowest IoU, the mean over the runs, and what they are taken for."""
    ious = np.full((len(runs), len(names)), np.nan)
    for number, run in enumerate(runs):
        stage = run.stages.get("val") or run.stages.get("test")
        for index, name in enumerate(names):
            value = stage.of_class(name).get(IOU) if stage else None
            ious[number, index] = math.nan if value is None else value
    known = np.isfinite(ious)
    means = np.where(known, ious, 0).sum(0) / np.maximum(known.sum(0), 1)
    order = [int(index) for index in np.argsort(means, kind="stable") if known[:, index].any()]
    return [
        HardClass(
            names[index],
            colors[index],
            [(percent(float(ious[n, index])), _taken_for(run, index, names, colors)) for n, run in enumerate(runs)],
        )
        for index in order[: min(_HARDEST, max(1, len(order) // 2))]
    ]


def _taken_for(run: Run, index: int, names: Sequence[str], colors: Sequence[str]) -> list[Share]:
    """What the pixels of a class were predicted as: the class itself first, then others down to one percent."""
    if run.confusion is None or run.confusion[index].sum() == 0:
        return []
    shares = 100 * run.confusion[index] / run.confusion[index].sum()
    order = [index, *(int(i) for i in np.argsort(-shares, kind="stable") if i != index)]
    shown = [i for i in order[:6] if shares[i] >= 1 or i == index]
    result = [Share(names[i], colors[i], float(shares[i])) for i in shown]
    rest = 100 - sum(share.percent for share in result)
    return [*result, Share("others", "", rest)] if rest >= 0.5 else result


def _matrix(run: Run) -> list[list[float]]:
    """Rows of the confusion matrix in percent of the true class; empty if there is none."""
    if run.confusion is None:
        return []
    totals = np.maximum(run.confusion.sum(1, keepdims=True), 1)
    return (100 * run.confusion / totals).tolist()


def _reliabilities(runs: Sequence[Run]) -> list[Reliability]:
    """Those of runs that were tested."""
    found = []
    for number, run in enumerate(runs):
        src, means = plot_uri(run.folder.reliability_picture), run.stages["test"].means if "test" in run.stages else {}
        errors = [(score_title(name), percent(means.get(name))) for name in (ECE, ECE_BOUNDARY) if name in means]
        if src is not None:
            found.append(Reliability(number, errors, src))
    return found


def _setting_rows(settings: Sequence[dict[str, Any]]) -> list[SettingRow]:
    rows = []
    present = [run for run in settings if run]
    for name in dict.fromkeys(chain.from_iterable(settings)):
        values = ["" if not run else _plain(run[name]) if name in run else "–" for run in settings]
        differs = len({value for value, run in zip(values, settings, strict=True) if run}) > 1 and len(present) > 1
        rows.append(SettingRow(name, values, differs))
    return rows


def _plain(value: object) -> str:
    """A setting as it would be typed."""
    if isinstance(value, str):
        return value
    if value == []:
        return "none"
    if isinstance(value, list) and all(isinstance(item, str) for item in value) and value:
        return " ".join(value)
    return json.dumps(value, default=str, ensure_ascii=False)
