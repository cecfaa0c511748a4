"""``gscnn ablate``: the rows of the paper's ablation with one budget and several seeds, in one table."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from pytorch_lightning.cli import instantiate_class
from rich import box
from rich.console import Console
from rich.table import Table

from gscnn_lightning.callbacks.pictures import predicted_row
from gscnn_lightning.checkpoint import check_checkpoint, load_task
from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.drawing import comparison_sheet
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.reports import score_headings, write_table
from gscnn_lightning.task import PREDICTION_SETTINGS
from gscnn_lightning.tool_parser import ToolParser
from gscnn_lightning.trainings import check_same_settings, parsed_settings, run_training

DESCRIPTION = """Train the rows of the paper's ablation with one budget, and compare them in one table.

Every row is trained once per seed, each as a gscnn-fit process of its own, with the same config and hence the same
number of steps; what a row changes comes last. A seed decides the initial weights, and the order and augmentation of
the samples. Scores are those of the best checkpoint on the validation split. Equal steps are not equal times: the
table says how long each row trained. To compare at equal times, give the faster row more epochs in an ablation of its
own; --trainer.max_time would stop rows before their learning rate has fallen.

The same command goes on where it was interrupted, and repeats nothing that is finished. The exit code is 1 if a row
failed. All other arguments are those of gscnn-fit.

examples:
  gscnn ablate --config configs/scenes.yaml
  gscnn ablate --config configs/camvid.yaml --data.root CamVid --seeds 0,1,2 --out runs/camvid_ablation
  gscnn ablate --config configs/scenes.yaml --rows control,dual_task --trainer.max_epochs 8
  gscnn ablate --config configs/scenes.yaml --rows control,my/sobel.yaml    rows of your own are configs, too
"""

ROWS = ("control", "gated", "gradient", "dual_task")
_LABELS = {"gated": "+ gates", "gradient": "+ image gradient", "dual_task": "+ dual task"}
_OWN_SETTINGS = ("ckpt_path", "seed_everything", "trainer.logger", "trainer.enable_progress_bar", "data.init_args.seed")
_IMAGES = 4
_TIME = "training_minutes"
_PARTS = ("mean", "std", "low", "high", "count")


@dataclass(frozen=True)
class Training:
    """One row with one seed.

    Attributes:
        row: name of the row.
        seed: its seed.
        folder: where its run is.
        arguments: those of ``gscnn-fit fit``.
    """

    row: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        """Whether its scores are there; they are written when all else is."""
        return (self.folder / "scores_val.json").is_file()


@dataclass(frozen=True)
class Result:
    """What became of a training.

    Attributes:
        row: name of the row.
        seed: its seed.
        folder: where its run is.
        means: scores in [0, 1] by name, such as "miou"; None where a score does not exist. Empty if it failed.
        seconds: training time, validations included; NaN if it failed.
        failure: why it failed, or "".
    """

    row: str
    seed: int
    folder: Path
    means: Mapping[str, float | None]
    seconds: float
    failure: str = ""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one score over seeds.

    Attributes:
        mean: arithmetic mean; NaN without values.
        std: sample standard deviation; NaN for fewer than two values.
        low: lowest value.
        high: highest value.
        count: number of values.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Spread of numbers, of which NaN are left out.

        Example:
            >>> Spread.of([1.0, 2.0, 3.0, math.nan])
            Spread(mean=2.0, std=1.0, low=1.0, high=3.0, count=3)
        """
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        std = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(statistics.fmean(known), std, min(known), max(known), len(known))

    def text(self, sign: str = "", with_std: bool = False) -> str:
        """Mean ± standard deviation, or ± half the distance between the lowest and the highest value.

        Example:
            >>> spread = Spread.of([61.9, 63.1])
            >>> spread.text(), spread.text("+", with_std=True), Spread.of([4.0]).text()
            ('62.5 ±0.6', '+62.5 ±0.8', '4.0')
        """
        if not self.count:
            return "-"
        width = self.std if with_std else (self.high - self.low) / 2
        return f"{round(self.mean, 1) + 0.0:{sign}.1f}" + (f" ±{width:.1f}" if self.count > 1 else "")


def ablate(
    configs: Sequence[str],
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1),
    rows: Sequence[str] = ROWS,
    out: Path = Path("runs/ablation"),
) -> list[Result]:
    """Train every row with every seed, and write one table and one picture.

    Args:
        configs: configs of ``gscnn-fit``, the same for all rows.
        overrides: further arguments of ``gscnn-fit``, the same for all rows.
        seeds: seeds to train with.
        rows: names of files in configs/ablation, or paths of configs; differences are to the first.
        out: folder for a run per row and seed, ablation.csv, ablation.json, ablation.md and contact_sheets.png.

    Returns:
        A result per row and seed; failed ones say why.

    Raises:
        SettingError: a row, a seed or an override cannot be used, or the folder has an ablation with other settings.
    """
    trainings = _plan(configs, overrides, seeds, rows, out)
    console = Console(highlight=False)
    results = []
    for index, training in enumerate(trainings, start=1):
        heading = f"{index} of {len(trainings)}: {_label(training.row)}, seed {training.seed}"
        results.append(_train(training, heading, console))
    parameters, note = _look_at_networks(results, _settings(trainings[0]), out)
    _report(results, parameters, out, console)
    if note:
        console.print(note, soft_wrap=True)
    return results


def _plan(
    configs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], rows: Sequence[str], out: Path
) -> list[Training]:
    """All trainings, after a look at their settings and at what is in the folder."""
    files = {Path(row).stem: _row_file(row) for row in rows}
    for what, given, unique in (("rows", rows, files), ("seeds", seeds, set(seeds))):
        if not given or len(unique) != len(given):
            raise SettingError(f"{what} are {','.join(map(str, given)) or 'empty'}: give each of them once")
    _check_overrides(overrides, files)
    common = [word for config in configs for word in ("--config", config)] + list(overrides)
    has_data_seed = "seed" in parsed_settings(common)["data"].get("init_args", {})
    trainings = []
    for row, file in files.items():
        for seed in seeds:
            name = f"{row}_seed{seed}"
            own = ["--config", str(file), "--seed_everything", str(seed), *_logger(out, name)]
            own += ["--data.seed", str(seed)] if has_data_seed else []
            trainings.append(Training(row, seed, out / name, (*common, *own)))
    _check_folder(trainings, out)
    return trainings


def _row_file(row: str) -> Path:
    """Config of a row: a file, or a name in configs/ablation of the working directory or of the source tree."""
    shipped = [folder / "configs/ablation" / f"{row}.yaml" for folder in (Path(), Path(__file__).parents[2])]
    for path in (Path(row), *shipped):
        if path.is_file():
            return path
    raise SettingError(f"row {row}: there is no {shipped[0]}. Rows are {', '.join(ROWS)}, or configs of your own")


def _logger(out: Path, name: str) -> list[str]:
    logger = {"save_dir": str(out), "name": "", "version": name}
    return ["--trainer.logger", "CSVLogger"] + [
        word for key, value in logger.items() for word in (f"--trainer.logger.{key}", value)
    ]


def _check_overrides(overrides: Sequence[str], files: Mapping[str, Path]) -> None:
    """Refuse to set for all rows what the rows differ in, and what this tool sets."""
    taken = {"seed_everything": "give --seeds", "ckpt_path": "an interrupted row goes on by itself"}
    for row, file in files.items():
        for key in _dotted(yaml.safe_load(file.read_text()) or {}):
            taken.setdefault(key, f"row {row} sets it; rows of your own are configs: --rows control,FILE")
    for word in overrides:
        key = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and (key in taken or key.startswith("trainer.logger")):
            raise SettingError(f"--{key} cannot be the same for all rows: {taken.get(key, 'give --out')}")


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in settings.items():
        keys += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return keys


def _settings(training: Training) -> dict[str, Any]:
    """What a training is made with, apart from its seed and its place."""
    settings = parsed_settings(training.arguments)
    for name in _OWN_SETTINGS:
        *parents, last = name.split(".")
        place = settings
        for parent in parents:
            place = place.get(parent, {})
        place.pop(last, None)
    return settings


def _check_folder(trainings: Sequence[Training], out: Path) -> None:
    """Compare the settings with those of the folder's earlier trainings, and keep them for the next time."""
    path = out / "settings.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for training in {t.row: t for t in trainings}.values():
        settings = json.loads(json.dumps(_settings(training)))
        what = f"{out} has an ablation with other settings. Row {training.row}"
        check_same_settings(kept.setdefault(training.row, settings), settings, what)
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=2) + "\n")


def _train(training: Training, heading: str, console: Console) -> Result:
    if training.is_finished:
        console.print(f"{heading}: finished already", soft_wrap=True)
        return _result(training)
    console.print(f"{heading}: in {training.folder}", soft_wrap=True)

    def on_epoch(line: str) -> bool:
        console.print(f"  {line}", soft_wrap=True)
        return False

    command = [sys.executable, "-m", "gscnn_lightning", "fit", *training.arguments, *_resume(training.folder)]
    outcome = run_training(command, training.folder.with_suffix(".log"), on_epoch)
    if outcome.code == 0 and training.is_finished:
        return _result(training)
    failure = (
        f"exit code {outcome.code}: {outcome.message}" if outcome.code else "it ended before its scores were written"
    )
    console.print(f"  failed, {failure}\n  all of its output is in {training.folder}.log", soft_wrap=True)
    return Result(training.row, training.seed, training.folder, {}, math.nan, failure)


def _resume(folder: Path) -> list[str]:
    """Arguments by which an interrupted training goes on in its own folder; none if it has no usable checkpoint."""
    last = folder / "checkpoints/last.ckpt"
    # Lightning refuses to write its config a second time, and its logger deletes the metrics that it finds.
    (folder / "config.yaml").unlink(missing_ok=True)
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        earlier = len(list(folder.glob("metrics_*.csv")))
        metrics.rename(folder / f"metrics_{earlier + 1}.csv")
    try:
        check_checkpoint(str(last))
    except WeightsError:
        return []
    return ["--ckpt_path", str(last)]


def _result(training: Training) -> Result:
    record = json.loads((training.folder / "scores_val.json").read_text())
    return Result(training.row, training.seed, training.folder, record["means"], record["training_seconds"])


def _look_at_networks(results: Sequence[Result], settings: Mapping[str, Any], out: Path) -> tuple[dict[str, int], str]:
    """Parameters of every row, and their pictures side by side; with what hindered that."""
    trained = [r for r in results if not r.failure and (r.folder / "checkpoints/best.ckpt").is_file()]
    # Networks of one seed, that of the most rows, so that nothing but the rows differs.
    seeds = [result.seed for result in trained]
    first = {r.row: r for r in trained if r.seed == max(seeds, key=seeds.count)}
    parameters: dict[str, int] = {}
    if not first:
        return parameters, ""
    try:
        data = _data(settings)
        dataset: Any = data.val_dataloader().dataset
        # The same images as on the contact sheet of every run.
        indices = np.unique(np.linspace(0, len(dataset) - 1, _IMAGES).round().astype(int))
        samples = [dataset[int(index)] for index in indices]
        networks = []
        for row, result in first.items():
            chosen = {name: settings["model"][name] for name in PREDICTION_SETTINGS if name in settings["model"]}
            task = load_task(str(result.folder / "checkpoints/best.ckpt"), **chosen)
            parameters[row] = sum(parameter.numel() for parameter in task.network.parameters())
            with torch.no_grad():
                networks.append([predicted_row(task, data, sample) for sample in samples])
        sheet = comparison_sheet([_label(row) for row in first], networks, data.class_names, data.class_colors)
    except GSCNNError as error:
        return parameters, f"no pictures: {error}"
    cv2.imwrite(str(out / "contact_sheets.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return parameters, f"side by side: {out / 'contact_sheets.png'} (seed {next(iter(first.values())).seed})"


def _data(settings: Mapping[str, Any]) -> SegmentationDataModule:
    data = instantiate_class((), settings["data"])
    data.setup("validate")
    return data


def _label(row: str) -> str:
    return _LABELS.get(row, row)


def _report(results: Sequence[Result], parameters: Mapping[str, int], out: Path, console: Console) -> None:
    """Print and save the tables."""
    rows = list(dict.fromkeys(result.row for result in results))
    names = _score_names(results)
    scores = {row: _spreads([r for r in results if r.row == row], names) for row in rows}
    changes = {row: _changes(results, rows[0], row, names) for row in rows[1:]}
    tables = _tables(results, scores, changes, parameters)
    for title, columns, cells in tables:
        table = Table(title=title, title_justify="left", title_style="bold", box=box.HORIZONTALS, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for line in cells:
            table.add_row(*line)
        console.print(table)
    failed = [f"{_label(r.row)}, seed {r.seed}, failed: {r.failure}" for r in results if r.failure]
    for text in failed:
        console.print(text, soft_wrap=True, markup=False)
    _save(results, scores, changes, parameters, out)
    markdown = [_markdown(*table) for table in tables] + ["".join(f"- {line}\n" for line in failed)]
    (out / "ablation.md").write_text("\n".join(part for part in markdown if part))
    console.print(f"saved in {out}: ablation.csv, ablation.json, ablation.md", soft_wrap=True)


TextTable = tuple[str, list[str], list[list[str]]]
"""Title, columns and cells."""


def _tables(
    results: Sequence[Result],
    scores: Mapping[str, Mapping[str, Spread]],
    changes: Mapping[str, Mapping[str, Spread]],
    parameters: Mapping[str, int],
) -> list[TextTable]:
    """The scores, and their differences to the first row's."""
    names = list(next(iter(scores.values())))
    seeds = len({result.seed for result in results})
    # Of two values, a standard deviation says no more than their distance, and says it less plainly.
    spread = {1: "one seed", 2: "2 seeds, mean ± half their distance"}
    title = spread.get(seeds, f"{seeds} seeds, mean ± sample standard deviation")
    labels = {row: _label(row) for row in scores}
    for row in scores:
        finished = sum(result.row == row and not result.failure for result in results)
        labels[row] += f" ({finished} of {seeds})" if finished < seeds else ""

    def texts(spreads: Mapping[str, Spread], sign: str) -> list[str]:
        cells = [spreads[name].text(sign, with_std=seeds > 2) for name in names if name != _TIME]
        return [*cells, _number(spreads[_TIME].mean, "x{:.2f}" if sign else "{:.1f}")]

    headings = [_heading(name) for name in names]
    cells = [[labels[r], *texts(s, ""), _number(parameters.get(r, math.nan), "{:,}")] for r, s in scores.items()]
    tables: list[TextTable] = [(f"scores in %, {title}", ["row", *headings, "parameters"], cells)]
    if changes:
        cells = [[labels[row], *texts(spreads, "+")] for row, spreads in changes.items()]
        tables.append((f"minus {_label(next(iter(scores)))} of the same seed, {title}", ["row", *headings], cells))
    return tables


def _number(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "-"


def _score_names(results: Sequence[Result]) -> list[str]:
    """Names of the scores of the table, in the order of the runs, and the training time."""
    known = dict.fromkeys(name for result in results for name in result.means)
    return [n for n in known if n in ("miou", "boundary_iou") or n.startswith("boundary_f1_")] + [_TIME]


def _heading(name: str) -> str:
    return {"miou": "mIoU", _TIME: "minutes"}.get(name) or score_headings([name])[0]


def _value(result: Result, name: str) -> float:
    """A score in percent, or the training time in minutes; NaN if there is none."""
    if name == _TIME:
        return result.seconds / 60
    value = result.means.get(name)
    return math.nan if value is None else 100 * value


def _spreads(results: Sequence[Result], names: Sequence[str]) -> dict[str, Spread]:
    return {name: Spread.of([_value(result, name) for result in results]) for name in names}


def _changes(results: Sequence[Result], reference: str, row: str, names: Sequence[str]) -> dict[str, Spread]:
    """Differences between the results of two rows with the same seed; of times, their ratio."""
    before, after = ({r.seed: r for r in results if r.row == which} for which in (reference, row))
    pairs = [(before[seed], after[seed]) for seed in before if seed in after]
    changes = {name: Spread.of([_value(b, name) - _value(a, name) for a, b in pairs]) for name in names}
    return {**changes, _TIME: Spread.of([_value(b, _TIME) / _value(a, _TIME) for a, b in pairs])}


def _markdown(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["-", *("-:" for _ in columns[1:])], *cells]
    return f"{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _save(
    results: Sequence[Result],
    scores: Mapping[str, Mapping[str, Spread]],
    changes: Mapping[str, Mapping[str, Spread]],
    parameters: Mapping[str, int],
    out: Path,
) -> None:
    """The numbers as CSV, a line per row, and as JSON with those of every training."""
    table: dict[str, dict[str, float | None]] = {}
    for row, spreads in scores.items():
        table[row] = {f"{name}_{part}": getattr(s, part) for name, s in spreads.items() for part in _PARTS}
        table[row].update({f"{name}_difference": s.mean for name, s in changes.get(row, {}).items() if name != _TIME})
        table[row]["parameters"] = parameters.get(row)
    write_table(out / "ablation.csv", table, first="row")
    record = {
        "unit": "scores in percent, time in minutes, differences in points, of times the ratio",
        "rows": {row: {name: asdict(spread) for name, spread in spreads.items()} for row, spreads in scores.items()},
        "differences": {row: {name: asdict(s) for name, s in spreads.items()} for row, spreads in changes.items()},
        "parameters": dict(parameters),
        "trainings": [{**asdict(result), "folder": str(result.folder)} for result in results],
    }
    plain = json.loads(json.dumps(record), parse_constant=lambda _: None)
    (out / "ablation.json").write_text(json.dumps(plain, indent=2) + "\n")


def _parser() -> ToolParser:
    parser = ToolParser("gscnn ablate", DESCRIPTION)
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="config of gscnn-fit, repeatable")
    parser.add_argument("--seeds", default="0,1", help="seeds, separated by commas (default 0,1)")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"rows, separated by commas (default {','.join(ROWS)})")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder (default runs/ablation)")
    return parser


def main(args: list[str]) -> None:
    """Run ``gscnn ablate``.

    Args:
        args: arguments after ``gscnn ablate``.
    """
    given, overrides = _parser().parse_known_args(args)
    seeds = given.seeds.strip("[] ").split(",")
    if not all(seed.strip().isdecimal() for seed in seeds):
        raise SettingError(f"seeds are {given.seeds}: give whole numbers from 0 on, such as 0,1,2")
    results = ablate(given.config, overrides, [int(seed) for seed in seeds], given.rows.split(","), given.out)
    if any(result.failure for result in results):
        sys.exit(1)
