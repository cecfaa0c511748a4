"""``gscnn sweep``: a W&B sweep file run on this machine, with Optuna in the place of the server."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from gscnn_lightning.errors import SettingError
from gscnn_lightning.tool_parser import ToolParser
from gscnn_lightning.trainings import check_same_settings, logged_values, run_training

if TYPE_CHECKING:
    import optuna

DESCRIPTION = """Run a W&B sweep file on this machine, without a server or an account.

Each run is a gscnn-fit process with the command of the file, apart from its logger. Optuna draws the values: TPE for
bayes, random or grid; early_terminate ends runs as W&B does, by successive halving over validations. A run that fails
is noted with its message, and the sweep goes on. Runs are ranked by their best validation (W&B's server: by their
last). The same command goes on where it was interrupted. The exit code is 1 if no run ended well. All other arguments
are those of gscnn-fit; values of the sweep win over them.

examples:
  gscnn sweep configs/sweep/backbone_gradient.yaml
  gscnn sweep configs/sweep/loss_weights.yaml --runs 20 --config configs/camvid.yaml --data.root CamVid
  gscnn sweep configs/sweep/optimizer.yaml --runs 30 --trainer.max_epochs 2 --out runs/short_sweep
"""

_NEEDS_OPTUNA = "gscnn sweep needs Optuna: pip install 'gscnn-lightning[sweeps]'"
_BY_SERVER = ("--trainer.logger",)


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


class Sweep:
    """A sweep file.

    Args:
        config: its content; "method", "metric", "parameters" and "command" are read, "early_terminate" and "run_cap" if
            they are there.

    Raises:
        SettingError: something is missing in it, or is not known here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        try:
            self.metric = str(config["metric"]["name"])
            self.minimizes = config["metric"].get("goal", "minimize") == "minimize"
            self.method, self.parameters = str(config["method"]), dict(config["parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(
                f"the sweep file lacks {error}: it needs method, metric with name and goal, and parameters"
            ) from error
        if self.method not in ("grid", "random", "bayes"):
            raise SettingError(f"method is {self.method}: use grid, random or bayes")
        self.program = str(config.get("program", "gscnn-fit"))
        self.command = [str(word) for word in config.get("command") or ("${program}", "fit", "${args}")]
        self.early_terminate = config.get("early_terminate")
        self.run_cap = config.get("run_cap")
        for name, parameter in self.parameters.items():
            _check_parameter(name, parameter)

    @property
    def grid(self) -> dict[str, list[Any]]:
        """Values of every parameter of a grid, as Optuna keeps them.

        Raises:
            SettingError: a parameter has no finite number of values.
        """
        return {name: _choices(name, p) for name, p in self.parameters.items() if "value" not in p}

    def number_of_runs(self, given: int | None) -> int:
        """How many runs there are to be: as asked for, as the file says, or as the grid has points.

        Args:
            given: number that was asked for, None if none was.

        Raises:
            SettingError: nothing says how many, or fewer than one.
        """
        points = math.prod(len(values) for values in self.grid.values()) if self.method == "grid" else None
        runs = min((n for n in (given or self.run_cap, points) if n is not None), default=None)
        if runs is None or runs < 1 or given == 0:
            raise SettingError(f"{'how many runs?' if given is None else f'number of runs is {given}:'} give --runs N")
        return int(runs)

    def draw(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Values of all parameters for one run."""
        return {name: _suggest(trial, name, parameter, self.method) for name, parameter in self.parameters.items()}

    def command_line(self, values: Mapping[str, Any], configs: Sequence[str], more: Sequence[str]) -> list[str]:
        """The line that W&B's agent would run, without its logger.

        Args:
            values: what was drawn, by setting.
            configs: configs in the place of those of the file; empty to keep these.
            more: further arguments, before the drawn values.
        """
        command = _without(create_sweep_command(list(self.command)), _BY_SERVER)
        if configs:
            command = _without(command, ("--config",))
        arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
        arguments.update(interpreter=["python"], program=[self.program], env=["/usr/bin/env"])
        extra = [word for config in configs for word in ("--config", config)] + list(more)
        line: list[str] = []
        for word in command:
            if not (word.startswith("${") and word.endswith("}")):
                line.append(word)
                continue
            name = word[2:-1]
            if name not in arguments:
                raise SettingError(f"{word} in the command is not known here: use ${{args}}")
            line += extra if name.startswith("args") else []
            line += arguments[name]
        return line


def _without(command: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command without some options and their values, which follow as ``--option value`` or ``--option=value``."""
    kept: list[str] = []
    skip = False
    for word in command:
        name, equals, _ = word.partition("=")
        if skip or any(name == option or name.startswith(option + ".") for option in options):
            skip = not skip and not equals
            continue
        kept.append(word)
    return kept


_LOG = ("log_uniform_values", "q_log_uniform_values")
_EXPONENTS = ("log_uniform", "q_log_uniform")
_RANGES = ("uniform", "q_uniform", *_LOG, *_EXPONENTS)


def _distribution(parameter: Mapping[str, Any]) -> str:
    """Name of a distribution, by W&B's defaults where it is not said."""
    if "value" in parameter:
        return "constant"
    if "values" in parameter:
        return "categorical_w_probabilities" if "probabilities" in parameter else "categorical"
    whole = all(isinstance(parameter.get(end), int) for end in ("min", "max"))
    return str(parameter.get("distribution", "int_uniform" if whole else "uniform"))


def _check_parameter(name: str, parameter: Any) -> None:  # noqa: ANN401
    if not isinstance(parameter, Mapping):
        raise SettingError(f"parameter {name} is {parameter}: write `value:`, `values:`, or `min:` and `max:` below it")
    if "parameters" in parameter:
        raise SettingError(f"parameter {name} has parameters of its own: write {name}.{next(iter(parameter), '')} ...")
    kind = _distribution(parameter)
    if kind not in ("constant", "categorical", "int_uniform", *_RANGES):
        raise SettingError(
            f"parameter {name} has the distribution {kind}, which is not known here: use values, int_uniform, "
            f"{', '.join(_RANGES)}"
        )
    if kind in ("int_uniform", *_RANGES) and not parameter.get("min", 1) < parameter.get("max", 0):
        raise SettingError(f"parameter {name}: {dict(parameter)} has no min below its max")


def _choices(name: str, parameter: Mapping[str, Any]) -> list[Any]:
    kind = _distribution(parameter)
    if kind == "categorical":
        return [json.dumps(value) for value in parameter["values"]]
    if kind == "int_uniform":
        return list(range(parameter["min"], parameter["max"] + 1))
    raise SettingError(f"parameter {name} of a grid is {kind}: give it values")


def _suggest(trial: "optuna.Trial", name: str, parameter: Mapping[str, Any], method: str) -> Any:  # noqa: ANN401
    kind = _distribution(parameter)
    if kind == "constant":
        return parameter["value"]
    if kind == "categorical":
        return json.loads(trial.suggest_categorical(name, _choices(name, parameter)))  # lists are no choices for Optuna
    low, high = parameter["min"], parameter["max"]
    if kind == "int_uniform":
        return trial.suggest_int(name, low, high)
    if kind in _EXPONENTS:
        low, high = math.exp(low), math.exp(high)
    value = trial.suggest_float(name, low, high, log=kind in _LOG + _EXPONENTS)
    return _rounded(value, parameter.get("q", 1)) if kind.startswith("q_") else value


def _rounded(value: float, q: float) -> float:
    """The nearest multiple of q, whole if q is."""
    multiple = round(value / q) * q
    return multiple if isinstance(q, int) else float(f"{multiple:.12g}")


def sweep(
    file: Path,
    runs: int | None = None,
    out: Path | None = None,
    configs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    seed: int = 0,
) -> list[Run]:
    """Run a W&B sweep file without a server.

    Args:
        file: the sweep file.
        runs: number of runs in all, with those of earlier calls; by default run_cap of the file, or the whole grid.
        out: folder for the runs, study.db, sweep.csv and sweep.json; by default runs/sweep_ and the file's name.
        configs: configs of ``gscnn-fit`` in the place of those of the file.
        overrides: further arguments of ``gscnn-fit``.
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
    config, out = _read(file), out or Path("runs") / f"sweep_{file.stem}"
    plan = Sweep(config)
    number = plan.number_of_runs(runs)
    _check_folder({"sweep": config, "configs": list(configs), "overrides": list(overrides)}, out)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(plan, out, seed)
    console = Console(highlight=False)

    def objective(trial: optuna.Trial) -> float:
        return _run(trial, plan, out, configs, overrides, console)

    missing = number - len(_runs(study, plan))
    if missing > 0:
        study.optimize(objective, missing, catch=(_TrainingError,))
    results = _runs(study, plan)
    _report(results, plan, out, console)
    return results


class _TrainingError(Exception):
    """Its message is kept with the run."""


def _read(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingError(f"sweep file {file} cannot be read ({error.strerror}): check the path") from error
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise SettingError(f"sweep file {file} is not valid YAML ({error}): correct it there") from error
    if not isinstance(config, dict):
        raise SettingError(f"{file} is no sweep file: it needs method, metric, parameters and command")
    return config


def _check_folder(settings: Mapping[str, Any], out: Path) -> None:
    """Keep what the folder's sweep is made with, or compare."""
    path = out / "settings.json"
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        check_same_settings(json.loads(path.read_text()), settings, f"{out} has another sweep")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


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


def _run(
    trial: "optuna.Trial", plan: Sweep, out: Path, configs: Sequence[str], overrides: Sequence[str], console: Console
) -> float:
    """Run one training; its best score."""
    import optuna

    values = plan.draw(trial)
    name = f"run_{trial.number:03}"
    trial.set_user_attr("values", values)
    logger = {"save_dir": str(out), "name": "", "version": name}
    place = ["--trainer.logger=CSVLogger", *(f"--trainer.logger.{key}={value}" for key, value in logger.items())]
    command = plan.command_line(values, configs, [*overrides, *place])
    drawn = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
    console.print(f"run {trial.number}: {drawn}", soft_wrap=True, markup=False)
    reported: list[float] = []
    is_worse = False

    def on_epoch(line: str) -> bool:
        nonlocal is_worse
        console.print(f"  {line}", soft_wrap=True)
        for value in logged_values(out / name / "metrics.csv", plan.metric)[len(reported) :]:
            reported.append(value)
            trial.report(value, len(reported))
        is_worse = is_worse or (bool(reported) and trial.should_prune())
        return is_worse

    outcome = run_training(command, out / f"{name}.log", on_epoch)
    scores = logged_values(out / name / "metrics.csv", plan.metric)
    finite = [score for score in scores if math.isfinite(score)]
    trial.set_user_attr("score", (min if plan.minimizes else max)(finite) if finite else None)
    # A training that is told to stop ends with exit code 0, as does one that was about to end anyway.
    if is_worse and not (out / name / "scores_val.json").is_file():
        console.print("  stopped early")
        raise optuna.TrialPruned
    if outcome.code or not finite:
        message = f"exit code {outcome.code}: {outcome.message}" if outcome.code else f"no {plan.metric} was logged"
        trial.set_user_attr("message", message)
        console.print(f"  failed, {message}\n  all of its output is in {out / name}.log", soft_wrap=True, markup=False)
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


def _report(runs: Sequence[Run], plan: Sweep, out: Path, console: Console) -> None:
    """Print and save the table."""
    names = [name for name, parameter in plan.parameters.items() if "value" not in parameter]
    short = [name.rpartition(".")[2] for name in names]
    headings = short if len(set(short)) == len(short) else names
    table = Table(title=f"{len(runs)} runs", title_justify="left", title_style="bold", box=box.HORIZONTALS)
    for index, heading in enumerate(("run", plan.metric, *headings, "")):
        table.add_column(heading, justify="right" if index < 2 else "left", overflow="fold")
    for run in runs:
        score = "-" if run.score is None else f"{run.score:.4f}"
        state = "" if run.state == "complete" else run.state
        table.add_row(str(run.number), score, *(_short(run.values.get(name)) for name in names), state)
    console.print(table)
    for run in runs:
        if run.message:
            console.print(f"run {run.number} failed, {run.message}", soft_wrap=True, markup=False)
    with (out / "sweep.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "state", plan.metric, *plan.parameters, "message"])
        for run in runs:
            values = [run.values.get(name) for name in plan.parameters]
            writer.writerow([run.number, run.state, run.score, *values, run.message])
    record = {"metric": plan.metric, "goal": "minimize" if plan.minimizes else "maximize"}
    text = json.dumps({**record, "runs": [asdict(run) for run in runs]}, indent=2)
    (out / "sweep.json").write_text(text + "\n")
    best = out / f"run_{runs[0].number:03}" / "checkpoints/best.ckpt" if runs else out
    if best.is_file():
        console.print(f"best: {best}", soft_wrap=True)
    console.print(f"saved in {out}: sweep.csv, sweep.json; each run in a folder of its own", soft_wrap=True)


def _short(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parser() -> ToolParser:
    parser = ToolParser("gscnn sweep", DESCRIPTION)
    parser.add_argument("file", type=Path, help="sweep file, such as configs/sweep/optimizer.yaml; comes first")
    parser.add_argument("--runs", type=int, help="runs in all, those of earlier calls included (default: the grid)")
    parser.add_argument("--out", type=Path, help="folder (default runs/sweep_FILE)")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="config instead of the file's, repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (default 0)")
    return parser


def main(args: list[str]) -> None:
    """Run ``gscnn sweep``.

    Args:
        args: arguments after ``gscnn sweep``.
    """
    given, overrides = _parser().parse_known_args(args)
    runs = sweep(given.file, given.runs, given.out, given.config, overrides, given.seed)
    if all(run.state == "failed" for run in runs):
        raise SystemExit(1)
