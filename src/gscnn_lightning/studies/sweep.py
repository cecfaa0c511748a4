"""A W&B sweep file run by any number of workers, with Optuna and its database in the place of the server."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import check_same_settings
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import logged_values
from gscnn_lightning.run_folder.score_files import write_json
from gscnn_lightning.studies.sweep_file import Sweep, read_sweep
from gscnn_lightning.studies.training import logger_arguments, run_training
from gscnn_lightning.terminal import new_table, say

if TYPE_CHECKING:
    import optuna
    from optuna.trial import TrialState

    from gscnn_lightning.studies.shared_study import Beats, SharedStudy

_NEEDS_OPTUNA = "gscnn sweep needs Optuna: pip install 'gscnn-lightning[sweeps]'"


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        number: from 0, as in the name of its folder.
        state: "complete", "stopped early" or "failed"; of a sweep at work "running" or "waiting", too.
        score: best value of the metric over its validations; None if there is none.
        values: what was drawn, by setting.
        message: why it failed, or "".
        worker: host and process that made it, such as "node1:4711"; "" of runs of former versions.
    """

    number: int
    state: str
    score: float | None
    values: Mapping[str, Any]
    message: str = ""
    worker: str = ""


def run_sweep(
    file: str,
    runs: int | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    storage: str | None = None,
    study: str | None = None,
    lost_after: float = 60.0,
) -> list[Run]:
    """Run a W&B sweep file without its server, alone or as one of several workers.

    Args:
        file: the sweep file, or the name of a shipped one.
        runs: number of runs of all workers together, with those of earlier calls; by default run_cap of the file, or
            the whole grid.
        out: folder for the runs, sweep.csv and sweep.json, and study.db unless there is a storage; by default
            runs/sweep_ and the file's name, or the study's.
        overrides: further arguments of ``gscnn-fit``; configs among them take the place of those of the file.
        seed: of the drawing; that of the first worker counts for all.
        storage: URL of the database with the study; by default a file of SQLite in the folder.
        study: its name; by default that of the file.
        lost_after: seconds without a sign of life after which another machine's worker takes this one for lost.

    Returns:
        The runs, the best first and failed ones last.

    Raises:
        SettingError: Optuna is not installed, the file or the database cannot be used, or the folder or the study has
            another sweep.
    """
    shared_study = _shared_study()
    if not 0.5 <= lost_after < 1e6:
        raise SettingError(f"--lost_after is {lost_after}: give seconds, such as 60")
    config = read_sweep(file)
    plan = Sweep(config)
    if runs is not None:
        plan.number_of_runs(runs)
    out, url, name = _places(file, out, storage, study)
    settings = json.loads(json.dumps({"sweep": config, "overrides": list(overrides)}))
    _check_folder(settings if name == _NAME else {**settings, "study": name}, out)
    shared = shared_study.SharedStudy(url, name, lost_after)
    shared.join(plan, settings, seed, runs)
    while (trial := shared.claim()) is not None:
        _work(shared, trial, out, overrides)
    results = _results(shared, plan)
    _report(results, plan, out)
    return results


def sweep_status(
    file: str = "", out: Path | None = None, storage: str | None = None, study: str | None = None
) -> list[Run]:
    """Print how a study stands, whoever works at it.

    Args:
        file: the sweep file; "" where storage and study say which.
        out: folder that the sweep was started with.
        storage: URL of the database, as the sweep was started with.
        study: name of the study; by default the only one there, or that of the file.

    Returns:
        The runs that have begun, the best first.

    Raises:
        SettingError: there is no such study.
    """
    shared_study = _shared_study()
    if storage is None and not file and out is None:
        raise SettingError("which study? give the sweep file, --out of the sweep, or --storage and --study")
    out, url, name = _places(file, out, storage, study)
    if storage is None and not (out / _DATABASE).is_file():
        raise SettingError(f"{out} has no {_DATABASE}: give --out or --storage as the sweep was started with")
    shared = shared_study.SharedStudy(url, name)
    if storage is not None and study is None and not file:
        names = shared.names()
        if len(names) != 1:
            raise SettingError(f"{shared.shown} has {len(names)} studies ({', '.join(names)}): give --study NAME")
        shared.name = names[0]
    kept = shared.look()
    if "settings" not in kept and not file:
        raise SettingError(f"study {shared.name} does not say what it draws from: give its sweep file, too")
    plan = Sweep(kept["settings"]["sweep"] if "settings" in kept else read_sweep(file))
    number = int(kept.get("runs", 0))
    results = _results(shared, plan, unfinished=True)
    counts = {state: sum(run.state == state for run in results) for state in _SHOWN}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    say(f"study {shared.name}: {len(results)} of {number} runs have begun{': ' * bool(told)}{told}")
    _print_table(results, plan)
    best = next((run for run in results if run.state == "complete"), None)
    if best is not None:
        say(f"best so far: run {best.number}, {plan.metric} {best.score:.4f}, made by {best.worker or 'this folder'}")
    return results


_NAME, _DATABASE = "sweep", "study.db"
_SHOWN = ("complete", "stopped early", "failed", "running", "waiting")


def _shared_study() -> Any:  # noqa: ANN401
    try:
        from gscnn_lightning.studies import shared_study
    except ModuleNotFoundError as error:
        raise SettingError(_NEEDS_OPTUNA) from error
    return shared_study


def _places(file: str, out: Path | None, storage: str | None, study: str | None) -> tuple[Path, Any, str]:
    """Folder, database and name of a study."""
    shared_study = _shared_study()
    stem = Path(file).stem
    if storage is None:
        out = out or Path("runs") / f"sweep_{study or stem}"
        return out, shared_study.storage_url(f"sqlite:///{(out / _DATABASE).absolute()}"), study or _NAME
    name = study or stem
    return out or Path("runs") / f"sweep_{name}", shared_study.storage_url(storage), name


def _check_folder(settings: Mapping[str, Any], out: Path) -> None:
    """Keep what the folder's sweep is made with, or compare."""
    path = out / "settings.json"
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Once, configs were kept apart.
        configs = [word for config in kept.pop("configs", []) for word in ("--config", config)]
        kept["overrides"] = [*configs, *kept.get("overrides", [])]
        check_same_settings(kept, settings, f"{out} has another sweep")
    write_json(path, settings)


def _work(shared: "SharedStudy", trial: "optuna.Trial", out: Path, overrides: Sequence[str]) -> None:
    """Run one training, and say how it ended."""
    from optuna.exceptions import UpdateFinishedTrialError

    from gscnn_lightning.studies.shared_study import Beats, TakenError

    try:
        with Beats(trial) as beats:
            attributes, state, score = _run(shared, trial, beats, out, overrides)
        shared.tell(trial, attributes, state, score)
    except (TakenError, UpdateFinishedTrialError):
        say(f"  run {trial.number} was without a sign of life for so long that another worker has it now")
    except BaseException:
        with suppress(SettingError):  # else others would have to find out
            shared.give_back(trial)
        raise


def _run(
    shared: "SharedStudy", trial: "optuna.Trial", beats: "Beats", out: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], "TrialState", float | None]:
    """Run one training; what is to be kept of it, how it ended, and its best score."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    from gscnn_lightning.studies.shared_study import DATABASE_ERRORS, TakenError

    plan = shared.plan
    values = shared.draw(trial)
    name = f"run_{trial.number:03}"
    run = RunFolder(out / name)
    if run.path.exists():
        raise SettingError(f"{run.path} is there already, of another study: give another --out")
    shared.patiently(lambda: trial.set_user_attr("values", values))
    command = plan.command_line(values, [*overrides, *logger_arguments(run)])
    drawn = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
    say(f"run {trial.number}: {drawn}")
    reported = 0
    is_worse = False

    def report() -> None:
        nonlocal reported
        for value in logged_values(run, plan.metric)[reported:]:
            trial.report(value, reported + 1)
            reported += 1

    def on_epoch(line: str) -> bool:
        nonlocal is_worse
        say(f"  {line}")
        try:
            report()
            is_worse = is_worse or (reported > 0 and trial.should_prune())
        except UpdateFinishedTrialError:
            return True
        except DATABASE_ERRORS:
            pass  # after the next epoch, then; no training is lost for a database that is away for a while
        return is_worse or beats.is_taken

    outcome = run_training(command, out / f"{name}.log", on_epoch)
    scores = logged_values(run, plan.metric)
    finite = [score for score in scores if math.isfinite(score)]
    attributes: dict[str, Any] = {"score": (min if plan.minimizes else max)(finite) if finite else None}
    if beats.is_taken:
        raise TakenError
    shared.patiently(report)
    # A training that is told to stop ends with exit code 0, as does one that was about to end anyway.
    if is_worse and not run.is_finished():
        say("  stopped early")
        return attributes, TrialState.PRUNED, None
    if outcome.code or not finite:
        message = f"exit code {outcome.code}: {outcome.message}" if outcome.code else f"no {plan.metric} was logged"
        say(f"  failed, {message}\n  all of its output is in {out / name}.log")
        return {**attributes, "message": message}, TrialState.FAIL, None
    return attributes, TrialState.COMPLETE, float(attributes["score"])


def _results(shared: "SharedStudy", plan: Sweep, unfinished: bool = False) -> list[Run]:
    """How the runs of the plan ended, or stand, the best first."""
    from gscnn_lightning.studies.shared_study import worker_name

    states = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}
    runs = []
    for attempts in shared.runs():
        if not (attempts.is_over or unfinished):
            continue
        trial = attempts.result or (attempts.open or attempts.trials)[0 if attempts.open else -1]
        told = trial.user_attrs
        state, message = states.get(trial.state.name, "waiting"), told.get("message", "")
        if attempts.result is None and attempts.is_over:
            message = f"its workers were lost {attempts.lost} times"
        elif attempts.result is None and not attempts.open:
            state = "waiting"  # for a worker that goes on with it
        score = told.get("score")
        if score is None and trial.intermediate_values:
            finite = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
            score = (min if plan.minimizes else max)(finite) if finite else None
        values = told.get("values") or plan.values(attempts.params)
        runs.append(Run(trial.number, state, score, values, message, worker_name(trial)))

    def rank(run: Run) -> tuple[int, float]:
        place = {"running": 1, "waiting": 2, "failed": 3}.get(run.state, 0 if run.score is not None else 3)
        return place, 0.0 if place or run.score is None else (run.score if plan.minimizes else -run.score)

    return sorted(runs, key=rank)


def _report(runs: Sequence[Run], plan: Sweep, out: Path) -> None:
    """Print and save the table."""
    _print_table(runs, plan, f"{len(runs)} runs")
    for run in runs:
        if run.message:
            say(f"run {run.number} failed, {run.message}")
    with (out / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "state", plan.metric, *plan.parameters, "message", "worker"])
        for run in runs:
            values = [run.values.get(name) for name in plan.parameters]
            writer.writerow([run.number, run.state, run.score, *values, run.message, run.worker])
    record = {"metric": plan.metric, "goal": "minimize" if plan.minimizes else "maximize"}
    write_json(out / "sweep.json", {**record, "runs": [asdict(run) for run in runs]})
    best = RunFolder(out / f"run_{runs[0].number:03}").best_checkpoint if runs else out
    if best.is_file():
        say(f"best: {best}")
    say(f"saved in {out}: sweep.csv, sweep.json; each run in a folder of its own")


def _print_table(runs: Sequence[Run], plan: Sweep, title: str = "") -> None:
    names = [name for name, parameter in plan.parameters.items() if "value" not in parameter]
    short = [name.rpartition(".")[2] for name in names]
    headings = short if len(set(short)) == len(short) else names
    with_workers = len({run.worker for run in runs}) > 1
    table = new_table(title)
    for index, heading in enumerate(("run", plan.metric, *headings, "", *(["worker"] if with_workers else []))):
        table.add_column(heading, justify="right" if index < 2 else "left", overflow="fold")
    for run in runs:
        score = "-" if run.score is None else f"{run.score:.4f}"
        state = "" if run.state == "complete" else run.state
        cells = [*(_short(run.values.get(name)) for name in names), state, *([run.worker] if with_workers else [])]
        table.add_row(str(run.number), score, *cells)
    say(table)


def _short(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else str(value)
