"""The rows of the paper's ablation with one budget and several seeds, in one table."""

import copy
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning.cli import instantiate_class

from gscnn_lightning.checkpoint import load_task, read_checkpoint
from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.plots import plot_score_curves
from gscnn_lightning.drawing.sheets import comparison_sheet
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.fit_settings import check_same_settings, parsed_settings
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.output import Prediction
from gscnn_lightning.prediction.predictor import predicted_sample, spread_indices
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import read_metrics
from gscnn_lightning.run_folder.score_files import read_image_scores, read_scores, write_json, write_table
from gscnn_lightning.score_names import BOUNDARY_IOU, MIOU, is_boundary_score, main_scores, score_headings, score_title
from gscnn_lightning.scores import most_changed_images
from gscnn_lightning.shipped_configs import find_config, read_config
from gscnn_lightning.studies.comparison import Comparison, Difference, Side, State, compare_sides, image_states
from gscnn_lightning.studies.equal_time import GIVEN, StepSeconds, epochs_of_equal_time
from gscnn_lightning.studies.tables import Spread, TextTable, number
from gscnn_lightning.studies.training import TrainingHeldError, held, logger_arguments, run_training
from gscnn_lightning.task import PREDICTION_SETTINGS, GSCNNTask
from gscnn_lightning.terminal import say

ROWS = ("control", "gated", "gradient", "dual_task")
_LABELS = {
    "supervised": "+ boundary supervision",
    "gated": "+ gates",
    "gradient": "+ image gradient",
    "dual_task": "+ dual task",
    "refined": "+ refinement",
    "control_refined": "control + refinement",
    "two_stream": "two-stream",
}
_OWN_SETTINGS = ("ckpt_path", "seed_everything", "trainer.logger", "trainer.enable_progress_bar", "data.init_args.seed")
_IMAGES = 4
_TIME = "training_minutes"
_SHEETS = ("contact_sheets.png", "gains_and_losses.png")
_PARTS = ("mean", "std", "low", "high", "count")


@dataclass(frozen=True)
class Training:
    """One row with one seed.

    Attributes:
        row: name of the row.
        seed: its seed.
        run: where its run is.
        arguments: those of ``gscnn-fit fit``.
    """

    row: str
    seed: int
    run: RunFolder
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of a training.

    Attributes:
        row: name of the row.
        seed: its seed.
        run: where its run is.
        means: scores in [0, 1] by name, such as "miou"; NaN where a score does not exist. Empty if it failed.
        seconds: training time, validations included; NaN if it failed.
        failure: why it failed, or "".
    """

    row: str
    seed: int
    run: RunFolder
    means: Mapping[str, float]
    seconds: float
    failure: str = ""


def run_ablation(
    arguments: Sequence[str],
    seeds: Sequence[int] = (0, 1),
    rows: Sequence[str] = ROWS,
    out: Path = Path("runs/ablation"),
    step_seconds: StepSeconds | None = None,
    block: int = 1,
) -> list[Result]:
    """Train every row with every seed, and write one table and one picture.

    Args:
        arguments: those of ``gscnn-fit fit``, the same for all rows.
        seeds: seeds to train with.
        rows: names of shipped rows, or paths of configs; differences are to the first.
        out: folder for a run per row and seed, ablation.csv, ablation.json, ablation.md, curves.png,
            contact_sheets.png and gains_and_losses.png: frames in which the last row differs most from the first.
        step_seconds: measures the training steps of rows from their arguments: then the rows are given equal time, the
            slowest the epochs of the config and the others more or longer ones. Else all are given the same epochs.
        block: number of neighbouring frames that the intervals of the differences draw together.

    Returns:
        A result per row and seed; failed ones say why.

    Raises:
        SettingError: a row, a seed or an override cannot be used, or the folder has an ablation with other settings.
    """
    trainings = _plan(arguments, seeds, rows, out, step_seconds)
    settings = {row: _settings(of_row) for row, of_row in {t.row: t.arguments for t in trainings}.items()}
    results = []
    for index, training in enumerate(trainings, start=1):
        heading = f"{index} of {len(trainings)}: {_label(training.row)}, seed {training.seed}"
        results.append(_train(training, heading))
    parameters: dict[str, int] = {}
    pictures, intervals = "", None
    _report(results, {}, out, show=False)  # whatever becomes of the rest
    trained = _with_checkpoint(results)
    with _left_out("pictures of the networks"):
        pictures = _draw_networks(trained, results[0].row, settings, out)
    with _left_out("intervals"):
        intervals = _intervals(trained, results[0].row, settings, block)
    with _left_out("numbers of parameters"):
        parameters = _parameters(trained)
    _report(results, parameters, out, intervals)
    with _left_out("curves"):
        _draw_curves(results, out)
    if pictures:
        say(pictures)
    return results


@contextmanager
def _left_out(what: str) -> Iterator[None]:
    """Go on without something that failed, and say so: the scores of hours of training are there without it."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, GSCNNError) else f"{type(error).__name__}: "
        say(f"no {what}: {kind}{' '.join(str(error).split())[:500]}")


def _with_checkpoint(results: Sequence[Result]) -> list[Result]:
    """Results whose networks are there; of others that had none is said."""
    done = [result for result in results if not result.failure]
    trained = [result for result in done if result.run.best_checkpoint.is_file()]
    if gone := [str(result.run.best_checkpoint) for result in done if result not in trained]:
        say(f"not in pictures and intervals, as there is no {', no '.join(gone)}")
    return trained


def _plan(
    arguments: Sequence[str],
    seeds: Sequence[int],
    rows: Sequence[str],
    out: Path,
    step_seconds: StepSeconds | None = None,
) -> list[Training]:
    """All trainings, after a look at their settings and at what is in the folder."""
    files = {Path(row).stem: find_config(row, "ablation") for row in rows}
    for what, given, unique in (("rows", rows, files), ("seeds", seeds, set(seeds))):
        if not given or len(unique) != len(given):
            raise SettingError(f"{what} are {','.join(map(str, given)) or 'empty'}: give each of them once")
    _check_arguments(arguments, files)
    epochs: Mapping[str, Sequence[str]] = {}
    if step_seconds is not None:
        of_rows = {row: (*arguments, "--config", str(file)) for row, file in files.items()}
        _check_folder(arguments, of_rows, out, but_for=GIVEN)
        epochs = epochs_of_equal_time(of_rows, {row: _label(row) for row in files}, out, step_seconds)
    has_data_seed = "seed" in parsed_settings(arguments)["data"].get("init_args", {})
    trainings = []
    for row, file in files.items():
        for seed in seeds:
            run = RunFolder(out / f"{row}_seed{seed}")
            own = ["--config", str(file), "--seed_everything", str(seed), *logger_arguments(run)]
            own += ["--data.seed", str(seed)] if has_data_seed else []
            own += epochs.get(row, ())
            trainings.append(Training(row, seed, run, (*arguments, *own)))
    _check_folder(arguments, {t.row: t.arguments for t in trainings}, out)
    return trainings


def _check_arguments(arguments: Sequence[str], files: Mapping[str, Path]) -> None:
    """Refuse to set for all rows what the rows differ in, and what this tool sets."""
    taken = {"seed_everything": "give --seeds", "ckpt_path": "an interrupted row goes on by itself"}
    for row, file in files.items():
        for key in _dotted(read_config(file, f"row {row},")):
            taken.setdefault(
                key.replace(".init_args.", "."), f"row {row} sets it; rows of your own are configs: --rows control,FILE"
            )
    for word in arguments:
        key = word.removeprefix("--").partition("=")[0].rstrip("+").replace(".init_args.", ".")
        if word.startswith("--") and (key in taken or key.startswith("trainer.logger")):
            raise SettingError(f"--{key} cannot be the same for all rows: {taken.get(key, 'give --out')}")


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in settings.items():
        keys += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return keys


def _settings(arguments: Sequence[str]) -> dict[str, Any]:
    """What a training is made with, apart from its seed and its place."""
    return _without(json.loads(json.dumps(parsed_settings(arguments))), _OWN_SETTINGS)


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Nested settings but for some, whose names are dotted."""
    left = copy.deepcopy(dict(settings))
    for name in names:
        *parents, last = name.split(".")
        place = left
        for parent in parents:
            place = place.get(parent, {})
        place.pop(last, None)
    return left


def _check_folder(
    arguments: Sequence[str], rows: Mapping[str, Sequence[str]], out: Path, but_for: Sequence[str] = ()
) -> None:
    """Compare the settings of rows with those of the folder's earlier trainings, and keep them for the next time.

    Args:
        arguments: those of ``gscnn-fit fit`` that all rows have: also rows of other names must not differ in them.
        rows: all arguments, by row.
        out: folder of the ablation.
        but_for: settings of rows that are not known yet: of these nothing is compared, and nothing is kept.
    """
    path = out / "settings.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    told = f"{out} has an ablation with other settings"
    settings = _settings(arguments)
    check_same_settings(kept.setdefault("", settings), settings, told)
    for row, of_row in rows.items():
        settings = _settings(of_row)
        before = kept.setdefault(row, settings)
        check_same_settings(_without(before, but_for), _without(settings, but_for), f"{told}. Row {row}")
    if not but_for:
        write_json(path, kept)


def _train(training: Training, heading: str) -> Result:
    run = training.run
    say(f"{heading}: {'finished already' if run.is_finished() else f'in {run.path}'}")

    def on_epoch(line: str) -> bool:
        say(f"  {line}")
        return False

    log = run.path.with_name(f"{run.path.name}.log")
    try:
        with held(log) as lock:
            if run.is_finished():
                return _result(training)
            command = [sys.executable, "-m", "gscnn_lightning", "fit", *training.arguments, *_resume(run)]
            outcome = run_training(command, log, on_epoch, lock)
    except TrainingHeldError as error:
        failure = str(error)
    else:
        if outcome.code == 0 and run.is_finished():
            return _result(training)
        ended = "it ended before its scores were written"
        failure = f"exit code {outcome.code}: {outcome.message}" if outcome.code else ended
    say(f"  failed, {failure}\n  all of its output is in {log}")
    return Result(training.row, training.seed, run, {}, math.nan, failure)


def _resume(run: RunFolder) -> list[str]:
    """Arguments by which an interrupted training goes on in its own folder; none if it has no usable checkpoint."""
    run.config.unlink(missing_ok=True)  # Lightning refuses to write its config a second time
    run.keep_metrics()
    try:
        read_checkpoint(str(run.last_checkpoint))
    except WeightsError:
        return []
    return ["--ckpt_path", str(run.last_checkpoint)]


def _result(training: Training) -> Result:
    scores = read_scores(training.run, "val")
    seconds = math.nan if scores.training_seconds is None else scores.training_seconds
    return Result(training.row, training.seed, training.run, scores.means, seconds)


def _parameters(trained: Sequence[Result]) -> dict[str, int]:
    """Number of parameters of every row's network."""
    paths = {r.row: str(r.run.best_checkpoint) for r in trained}  # of one seed: they are alike
    return {row: sum(p.numel() for p in load_task(path, "cpu").network.parameters()) for row, path in paths.items()}


def _network(result: Result, settings: Mapping[str, Mapping[str, Any]]) -> GSCNNTask:
    """The network of a training, which predicts as its row does."""
    model = settings[result.row]["model"]
    chosen = {name: model[name] for name in PREDICTION_SETTINGS if name in model}
    return load_task(str(result.run.best_checkpoint), **chosen)


def _draw_networks(
    trained: Sequence[Result], reference: str, settings: Mapping[str, Mapping[str, Any]], out: Path
) -> str:
    """Pictures of every row side by side; says where they are."""
    # Networks of one seed, that of the most rows, so that nothing but the rows differs.
    seeds = [result.seed for result in trained]
    first = {r.row: r for r in trained if r.seed == max(seeds, key=seeds.count)}
    if not first:
        return ""
    data = _data(next(iter(settings.values())))
    dataset: Any = data.val_dataloader().dataset
    # The same images as on the contact sheet of every run.
    everywhere, extremes = _SHEETS
    sheets = {everywhere: dict.fromkeys(spread_indices(len(dataset), _IMAGES), "")}
    if found := _extremes(trained, reference, list(first)[-1]):
        sheets[extremes] = found
    networks: dict[str, list[list[Prediction]]] = {name: [] for name in sheets}
    for result in first.values():
        task = _network(result, settings)
        for name, captions in sheets.items():
            with torch.no_grad():
                images = [(predicted_sample(task, data, dataset[place]), text) for place, text in captions.items()]
            networks[name].append([replace(image, name=image.name + text) for image, text in images])
    for name, of_rows in networks.items():
        sheet = comparison_sheet(list(map(_label, first)), of_rows, data.class_names, data.class_colors)
        write_picture(out / name, sheet, overwrite=True)
    for name in set(_SHEETS) - set(sheets):
        (out / name).unlink(missing_ok=True)  # of rows before
    pictures = ", ".join(str(out / name) for name in sheets)
    return f"side by side: {pictures} (seed {next(iter(first.values())).seed})"


def _extremes(trained: Sequence[Result], first: str, last: str) -> dict[int, str]:
    """Places of the frames in which one row gains most against another and loses most, with what to write below."""
    images = {(r.row, r.seed): read_image_scores(r.run) for r in trained}
    pairs = [(images[first, s], images[last, s]) for row, s in images if row == last and (first, s) in images]
    pairs = [(a, b) for a, b in pairs if a and len(a) == len(b)] if first != last else []
    if not pairs:
        return {}
    name = next(filter(is_boundary_score, pairs[0][0][0].values), MIOU)
    changed = most_changed_images(pairs, name, _IMAGES)
    return {place: f": {100 * change:+.1f} {_heading(name)}" for place, change in changed}


class _Intervals(NamedTuple):
    """Rows compared with the first, and the fewest seeds that one of them has in common with it."""

    found: Comparison
    seeds: int


def _intervals(
    trained: Sequence[Result], reference: str, settings: Mapping[str, Mapping[str, Any]], block: int
) -> _Intervals | None:
    """Every row compared with the first on the validation split, all seeds that both have as one side; None without."""
    by_row = {row: {r.seed: r for r in trained if r.row == row} for row in dict.fromkeys(r.row for r in trained)}
    first = by_row.pop(reference, {})
    common = {row: [seed for seed in first if seed in own] for row, own in by_row.items()}
    common = {row: seeds for row, seeds in common.items() if seeds}
    if not common:
        return None
    data = _data(next(iter(settings.values())))
    source = data.checked_source("val")
    frames = [source.name(index) for index in range(len(source))]
    tolerances = load_task(str(next(iter(first.values())).run.best_checkpoint), "cpu").settings.boundary_tolerances
    evaluation = Evaluation(data.class_names, data.ignore_index, tolerances)
    measured: dict[Path, Sequence[State]] = {}

    def states(result: Result, evaluation: Evaluation) -> Sequence[State]:
        if result.run.path not in measured:
            measured[result.run.path] = image_states(_network(result, settings), evaluation, data, "val")
        return measured[result.run.path]

    def side(results: Sequence[Result]) -> Side:
        return Side(tuple(str(r.run.path) for r in results), tuple(partial(states, r) for r in results))

    found = []
    for row, seeds in common.items():
        sides = [side([of_row[seed] for seed in seeds]) for of_row in (first, by_row[row])]
        found.append(compare_sides(sides, evaluation, frames, block=block))
    against = tuple(comparison.against[0] for comparison in found)
    compared = replace(found[0], sides=(_label(reference), *map(_label, common)), against=against)
    return _Intervals(compared, min(map(len, common.values())))


def _interval_table(intervals: _Intervals, names: Sequence[str]) -> TextTable:
    """Intervals of the differences from the first row."""
    found, seeds = intervals
    drawn = f"{found.blocks} blocks of frames" if found.blocks < found.frames else f"{found.frames} frames"
    cells = [
        [label, *(_interval_text(other[name]) for name in names)]
        for label, other in zip(found.sides[1:], found.against, strict=True)
    ]
    over = f"{drawn} and {seeds} seeds" if seeds > 1 else drawn
    title = f"minus {found.sides[0]}, 95 % intervals over {over}"
    return TextTable(title, ["row", *map(_heading, names)], cells)


def _interval_text(found: Difference) -> str:
    ends = [round(100 * end, 1) + 0.0 for end in (found.low, found.high)]
    return "{:+.1f} to {:+.1f}".format(*ends) if all(map(math.isfinite, ends)) else "-"


def _data(settings: Mapping[str, Any]) -> SegmentationDataModule:
    data = instantiate_class((), settings["data"])
    data.setup("validate")
    return data


def _label(row: str) -> str:
    return _LABELS.get(row, row)


def _report(
    results: Sequence[Result],
    parameters: Mapping[str, int],
    out: Path,
    intervals: _Intervals | None = None,
    show: bool = True,
) -> None:
    """Save the tables, and print them."""
    rows = list(dict.fromkeys(result.row for result in results))
    names = _score_names(results)
    scores = {row: _spreads([r for r in results if r.row == row], names) for row in rows}
    changes = {row: _changes(results, rows[0], row, names) for row in rows[1:]}
    tables = _tables(results, scores, changes, parameters)
    compared = [name for name in names if intervals is not None and name in intervals.found.against[0]]
    if intervals is not None:
        tables.append(_interval_table(intervals, compared))
    failed = [f"{_label(r.row)}, seed {r.seed}, failed: {r.failure}" for r in results if r.failure]
    if show:
        for table in tables:
            say(table.for_terminal())
        for text in failed:
            say(text)
    found = {} if intervals is None else _interval_record(intervals.found, compared)
    _save(results, scores, changes, parameters, out, found)
    markdown = [table.markdown() for table in tables] + ["".join(f"- {line}\n" for line in failed)]
    (out / "ablation.md").write_text("\n".join(part for part in markdown if part), encoding="utf-8")
    if show:
        say(f"saved in {out}: ablation.csv, ablation.json, ablation.md")


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
        return [*cells, number(spreads[_TIME].mean, "x{:.2f}" if sign else "{:.1f}")]

    headings = [_heading(name) for name in names]
    cells = [[labels[r], *texts(s, ""), number(parameters.get(r, math.nan), "{:,}")] for r, s in scores.items()]
    tables = [TextTable(f"scores in %, {title}", ["row", *headings, "parameters"], cells)]
    if changes:
        cells = [[labels[row], *texts(spreads, "+")] for row, spreads in changes.items()]
        title = f"minus {_label(next(iter(scores)))} of the same seed, {title}"
        tables.append(TextTable(title, ["row", *headings], cells))
    return tables


def _draw_curves(results: Sequence[Result], out: Path) -> None:
    """Validation scores over the minutes of the trainings, as far as they were validated more than once."""
    names = [name for name in _score_names(results) if name != _TIME]
    curves: dict[str, dict[str, Any]] = {}
    for row in dict.fromkeys(result.row for result in results):
        done = [(r, read_metrics(r.run)[0]) for r in results if r.row == row and not r.failure]
        for name in names:
            series = [one[f"val/{name}"] for _, one in done if f"val/{name}" in one]
            steps = set.intersection(*(set(s) for s, _ in series)) if series else set()
            if len(steps) < 2:
                continue
            values = np.array([[v for s, v in zip(*one, strict=True) if s in steps] for one in series])
            # Steps are counted from 0, and a training ends with its last.
            total = [r.seconds / 60 / (max(one["epoch"][0]) + 1) for r, one in done]
            minutes = (np.array(sorted(steps)) + 1) * float(np.mean(total))
            curves.setdefault(score_title(name), {})[_label(row)] = minutes, values
    if curves:
        plot_score_curves(curves, out / "curves.png")


def _score_names(results: Sequence[Result]) -> list[str]:
    """Names of the scores of the table, in the order of the runs, and the training time."""
    known = dict.fromkeys(name for result in results for name in result.means)
    return [*main_scores(known), *([BOUNDARY_IOU] if BOUNDARY_IOU in known else []), _TIME]


def _heading(name: str) -> str:
    return "minutes" if name == _TIME else score_headings([name])[0]


def _value(result: Result, name: str) -> float:
    """A score in percent, or the training time in minutes; NaN if there is none."""
    if name == _TIME:
        return result.seconds / 60
    return 100 * result.means.get(name, math.nan)


def _spreads(results: Sequence[Result], names: Sequence[str]) -> dict[str, Spread]:
    return {name: Spread.of([_value(result, name) for result in results]) for name in names}


def _changes(results: Sequence[Result], reference: str, row: str, names: Sequence[str]) -> dict[str, Spread]:
    """Differences between the results of two rows with the same seed; of times, their ratio."""
    before, after = ({r.seed: r for r in results if r.row == which} for which in (reference, row))
    pairs = [(before[seed], after[seed]) for seed in before if seed in after]
    changes = {name: Spread.of([_value(b, name) - _value(a, name) for a, b in pairs]) for name in names}
    return {**changes, _TIME: Spread.of([_value(b, _TIME) / _value(a, _TIME) for a, b in pairs])}


def _interval_record(found: Comparison, names: Sequence[str]) -> dict[str, Any]:
    """Differences and their intervals in points, by row and score."""
    rows = {}
    for label, other in zip(found.sides[1:], found.against, strict=True):
        rows[label] = {
            name: {"difference": 100 * (d.b - d.a), "low": 100 * d.low, "high": 100 * d.high}
            for name, d in ((name, other[name]) for name in names)
        }
    return {"frames": found.frames, "blocks": found.blocks, "rows": rows}


def _save(
    results: Sequence[Result],
    scores: Mapping[str, Mapping[str, Spread]],
    changes: Mapping[str, Mapping[str, Spread]],
    parameters: Mapping[str, int],
    out: Path,
    intervals: Mapping[str, Any],
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
        "intervals": intervals,
        "parameters": dict(parameters),
        "trainings": [_record(result) for result in results],
    }
    write_json(out / "ablation.json", record)


def _record(result: Result) -> dict[str, Any]:
    record = asdict(result)
    del record["run"]
    return {**record, "folder": str(result.run.path)}
