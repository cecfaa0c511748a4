"""A W&B sweep file run on this machine, with Optuna in the place of the server."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
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

_NEEDS_OPTUNA = "gscnn sweep needs Optuna: pip install 'gscnn-lightning[sweeps]'"


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        number: from 0, as in the name of its folder.
        state: "complete", "stopped early" or "failed".
        score: best value of the metric over its validations; None if there is none.
        values: what was drawn, by setting.
        message: why it failed, or "".
    """

    number: int
    state: str
    score: float | None
    values: Mapping[str, Any]
    message: str = ""


def run_sweep(
    file: str, runs: int | None = None, out: Path | None = None, overrides: Sequence[str] = (), seed: int = 0
) -> list[Run]:
    """Run a W&B sweep file without a server.

    Args:
        file: the sweep file, or the name of a shipped one.
        runs: number of runs in all, with those of earlier calls; by default run_cap of the file, or the whole grid.
        out: folder for the runs, study.db, sweep.csv and sweep.json; by default runs/sweep_ and the file's name.
        overrides: further arguments of ``gscnn-fit``; configs among them take the place of those of the file.
        seed: of the drawing.

    Returns:
        The runs, the best first and failed ones last.

    Raises:
        SettingError: Optuna is not installed, the file cannot be used, or the folder has another sweep.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SettingError(_NEEDS_OPTUNA) from error
    config, out = read_sweep(file), out or Path("runs") / f"sweep_{Path(file).stem}"
    plan = Sweep(config)
    number = plan.number_of_runs(runs)
    _check_folder({"sweep": config, "overrides": list(overrides)}, out)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(plan, out, seed)

    def objective(trial: optuna.Trial) -> float:
        return _run(trial, plan, out, overrides)

    missing = number - len(_runs(study, plan))
    if missing > 0:
        study.optimize(objective, missing, catch=(_TrainingError,))
    results = _runs(study, plan)
    _report(results, plan, out)
    return results


class _TrainingError(Exception):
    """Its message is kept with the run."""


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


def _study(plan: Sweep, out: Path, seed: int) -> "optuna.Study":
    """The study in the folder, with the values of interrupted runs queued once more."""
    import optuna
    from optuna.trial import TrialState

    storage = f"sqlite:///{(out / 'study.db').absolute()}"
    direction = "minimize" if plan.minimizes else "maximize"
    study = optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)
    trials = study.get_trials()
    queued = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL or "message" in trial.user_attrs:
            continue
        if trial.number not in queued:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
    # A seed used twice would draw the same values again.
    seed += len(study.trials)
    study.sampler = {
        "grid": lambda: optuna.samplers.GridSampler(plan.grid, seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "bayes": lambda: optuna.samplers.TPESampler(seed=seed),
    }[plan.method]()
    study.pruner = _pruner(plan.early_terminate)
    return study


def _pruner(early_terminate: Mapping[str, Any] | None) -> "optuna.pruners.BasePruner":
    """W&B's hyperband: after min_iter, min_iter * eta, ... values of the metric only the best 1 / eta go on."""
    import optuna

    if early_terminate is None:
        return optuna.pruners.NopPruner()
    eta = int(early_terminate.get("eta", 3))
    first = early_terminate.get("min_iter")
    if first is None and "max_iter" in early_terminate:
        first = early_terminate["max_iter"] // eta ** early_terminate.get("s", 1)
    if early_terminate.get("type") != "hyperband" or first is None:
        raise SettingError(f"early_terminate is {dict(early_terminate)}: use hyperband with min_iter, or leave it out")
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(int(first), 1), reduction_factor=eta)


def _run(trial: "optuna.Trial", plan: Sweep, out: Path, overrides: Sequence[str]) -> float:
    """Run one training; its best score."""
    import optuna

    values = plan.draw(trial)
    name = f"run_{trial.number:03}"
    trial.set_user_attr("values", values)
    run = RunFolder(out / name)
    command = plan.command_line(values, [*overrides, *logger_arguments(run)])
    drawn = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
    say(f"run {trial.number}: {drawn}")
    reported: list[float] = []
    is_worse = False

    def on_epoch(line: str) -> bool:
        nonlocal is_worse
        say(f"  {line}")
        for value in logged_values(run, plan.metric)[len(reported) :]:
            reported.append(value)
            trial.report(value, len(reported))
        is_worse = is_worse or (bool(reported) and trial.should_prune())
        return is_worse

    outcome = run_training(command, out / f"{name}.log", on_epoch)
    scores = logged_values(run, plan.metric)
    finite = [score for score in scores if math.isfinite(score)]
    trial.set_user_attr("score", (min if plan.minimizes else max)(finite) if finite else None)
    # A training that is told to stop ends with exit code 0, as does one that was about to end anyway.
    if is_worse and not run.is_finished():
        say("  stopped early")
        raise optuna.TrialPruned
    if outcome.code or not finite:
        message = f"exit code {outcome.code}: {outcome.message}" if outcome.code else f"no {plan.metric} was logged"
        trial.set_user_attr("message", message)
        say(f"  failed, {message}\n  all of its output is in {out / name}.log")
        raise _TrainingError(message)
    return float(trial.user_attrs["score"])


def _runs(study: "optuna.Study", plan: Sweep) -> list[Run]:
    """What has ended by itself, the best first."""
    states = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
    runs = []
    for trial in study.get_trials(deepcopy=False):
        told = trial.user_attrs
        # Interrupted ones have neither a score nor a message.
        if trial.state.name in states and "score" in told:
            values = told.get("values", {})
            runs.append(Run(trial.number, states[trial.state.name], told.get("score"), values, told.get("message", "")))

    def rank(run: Run) -> tuple[bool, float]:
        failed = run.state == "failed" or run.score is None
        return failed, 0.0 if failed else (run.score if plan.minimizes else -run.score)  # type: ignore[operator,return-value]

    return sorted(runs, key=rank)


def _report(runs: Sequence[Run], plan: Sweep, out: Path) -> None:
    """Print and save the table."""
    names = [name for name, parameter in plan.parameters.items() if "value" not in parameter]
    short = [name.rpartition(".")[2] for name in names]
    headings = short if len(set(short)) == len(short) else names
    table = new_table(f"{len(runs)} runs")
    for index, heading in enumerate(("run", plan.metric, *headings, "")):
        table.add_column(heading, justify="right" if index < 2 else "left", overflow="fold")
    for run in runs:
        score = "-" if run.score is None else f"{run.score:.4f}"
        state = "" if run.state == "complete" else run.state
        table.add_row(str(run.number), score, *(_short(run.values.get(name)) for name in names), state)
    say(table)
    for run in runs:
        if run.message:
            say(f"run {run.number} failed, {run.message}")
    with (out / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "state", plan.metric, *plan.parameters, "message"])
        for run in runs:
            values = [run.values.get(name) for name in plan.parameters]
            writer.writerow([run.number, run.state, run.score, *values, run.message])
    record = {"metric": plan.metric, "goal": "minimize" if plan.minimizes else "maximize"}
    write_json(out / "sweep.json", {**record, "runs": [asdict(run) for run in runs]})
    best = RunFolder(out / f"run_{runs[0].number:03}").best_checkpoint if runs else out
    if best.is_file():
        say(f"best: {best}")
    say(f"saved in {out}: sweep.csv, sweep.json; each run in a folder of its own")


def _short(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else str(value)
