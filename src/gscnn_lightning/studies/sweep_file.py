"""Sweep files in the format of W&B: what they say, and how Optuna draws from them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from gscnn_lightning.checks import is_number
from gscnn_lightning.errors import SettingError
from gscnn_lightning.parsing import option_values, without_options
from gscnn_lightning.shipped_configs import find_config, read_config

if TYPE_CHECKING:
    import optuna

_BY_SERVER = ("--trainer.logger",)


def read_sweep(file: str) -> dict[str, Any]:
    """Content of a sweep file.

    Args:
        file: path, or the name of a shipped one, such as "optimizer".

    Raises:
        SettingError: it cannot be read, or is no sweep file.
    """
    return read_config(find_config(file, "sweep"), "sweep file", "method, metric, parameters and command")


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
            goal = config["metric"].get("goal", "minimize")
            self.method, self.parameters = str(config["method"]), dict(config["parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(
                f"the sweep file lacks {error}: it needs method, metric with name and goal, and parameters"
            ) from error
        if goal not in ("minimize", "maximize"):
            raise SettingError(f"goal of the metric is {goal}: use minimize or maximize")
        self.minimizes = goal == "minimize"
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

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the parameters that were drawn, from what Optuna keeps of them."""
        kinds = {name: _distribution(self.parameters[name]) for name in params if name in self.parameters}
        return {
            name: json.loads(params[name]) if kind == "categorical" else params[name] for name, kind in kinds.items()
        }

    def command_line(self, values: Mapping[str, Any], more: Sequence[str]) -> list[str]:
        """The line that W&B's agent would run, without its logger.

        Args:
            values: what was drawn, by setting.
            more: further arguments, before the drawn values; configs among them take the place of those of the file.
        """
        own_config = bool(option_values(more, "--config"))
        replaced = [*_BY_SERVER, "--config"] if own_config else _BY_SERVER
        command = without_options(create_sweep_command(list(self.command)), replaced)
        arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
        arguments.update(interpreter=["python"], program=[self.program], env=["/usr/bin/env"])
        line: list[str] = []
        for word in command:
            if not (word.startswith("${") and word.endswith("}")):
                line.append(word)
                continue
            name = word[2:-1]
            if name not in arguments:
                raise SettingError(f"{word} in the command is not known here: use ${{args}}")
            line += more if name.startswith("args") else []
            line += arguments[name]
        return line


_LOG = ("log_uniform_values", "q_log_uniform_values")
_EXPONENTS = ("log_uniform", "q_log_uniform")
_LARGEST_EXPONENT = 700
"""Of e, in double precision, with some room: at 710 there is no such number."""
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
    if kind in ("int_uniform", *_RANGES):
        for what in ("min", "max", "q"):
            _check_number(name, parameter, what)
        if not parameter["min"] < parameter["max"]:
            raise SettingError(f"parameter {name}: {dict(parameter)} has no min below its max")
        if kind == "int_uniform" and not all(isinstance(parameter[end], int) for end in ("min", "max")):
            raise SettingError(f"parameter {name}: {dict(parameter)} is of whole numbers: give whole min and max")
        if kind in _LOG and parameter["min"] <= 0:
            raise SettingError(f"parameter {name}: its min is {parameter['min']}: logarithms need one above 0")
        if kind in _EXPONENTS and max(map(abs, (parameter["min"], parameter["max"]))) > _LARGEST_EXPONENT:
            raise SettingError(
                f"parameter {name}: {dict(parameter)} are exponents of e, and too large: for the values themselves use "
                "log_uniform_values"
            )
    values = parameter.get("values")
    if kind == "categorical" and not (isinstance(values, list) and values):
        raise SettingError(f"parameter {name}: values are {values!r}: give a list, or `value:` for one")


def _check_number(name: str, parameter: Mapping[str, Any], what: str) -> None:
    if what not in parameter:
        if what == "q":
            return
        raise SettingError(f"parameter {name}: {dict(parameter)} has no {what}: give min and max, or values")
    value = parameter[what]
    written = re.fullmatch(r"([+-]?\d+)(\.\d*)?e([+-]?)(\d+)", str(value), re.IGNORECASE)
    if isinstance(value, str) and written:
        point, sign = written[2] or ".0", written[3] or "+"
        raise SettingError(
            f"parameter {name}: its {what} {value} is text for YAML, whose exponents need a point before them and a "
            f"sign: write {written[1]}{point}e{sign}{written[4]}"
        )
    if isinstance(value, bool) or not is_number(value):
        raise SettingError(f"parameter {name}: its {what} is {value!r}: give a number")
    if what == "q" and value <= 0:
        raise SettingError(f"parameter {name}: its q is {value}: give a number above 0, whose multiples are drawn")


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
