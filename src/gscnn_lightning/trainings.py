"""Trainings that a tool starts: each is a ``gscnn-fit`` process of its own, so that none can harm the others."""

import csv
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gscnn_lightning.cli import GSCNNCLI
from gscnn_lightning.errors import SettingError

_PATIENCE = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        code: exit code of its process, 0 for success.
        message: what the process said last about an error, "" if it ended well.
    """

    code: int
    message: str = ""


def run_training(command: Sequence[str], log: Path, on_epoch: Callable[[str], bool]) -> Outcome:
    """Run a training to its end, with everything it prints in a file.

    Args:
        command: program and arguments; programs of this Python's environment are found without a path.
        log: file to write.
        on_epoch: called with the line that each epoch ends with; True stops the training.

    Raises:
        SettingError: the program does not exist.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    # Notebooks ask for colours, which have no place in a file.
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    environment |= {"PATH": path, "PYTHONUNBUFFERED": "1"}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        raise SettingError(f"{command[0]} cannot be started ({error.strerror}): check the command") from error
    lines: list[str] = []
    try:
        with log.open("w") as file:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                lines.append(line.rstrip())
                if line.startswith("epoch ") and on_epoch(line.rstrip()):
                    process.terminate()
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return Outcome(code, _last_error(lines) if code else "")


def _end(process: "subprocess.Popen[str]") -> None:
    """Make sure that no training is left behind; ctrl-C has reached it already."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _last_error(lines: Sequence[str]) -> str:
    """The last error message among lines of output, or else the last line."""
    said = [line for line in lines if line.strip() and not line.startswith("All settings: ")]
    starts = [index for index, line in enumerate(said) if re.search(r"(error|Error|Exception):", line)]
    return " ".join(said[starts[-1] if starts else -1 :])[:500] or "it ended without a message"


def logged_values(metrics_csv: Path, name: str) -> list[float]:
    """Every value that a training has logged so far under a name, oldest first.

    Args:
        metrics_csv: file of Lightning's ``CSVLogger``; a missing one has no values.
        name: such as "val/miou".
    """
    if not metrics_csv.is_file():
        return []
    with metrics_csv.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


class _SettingsCLI(GSCNNCLI):
    """Parses as ``gscnn-fit`` and stops there."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": GSCNNCLI.subcommands()["fit"]}

    def _set_seed(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def settings(self) -> dict[str, Any]:
        return yaml.safe_load(self._parser("fit").dump(self.config["fit"]))


def parsed_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """What ``gscnn-fit fit`` would run, as plain data without what is None; exits with a message if that is a mistake.

    Args:
        arguments: those after ``gscnn-fit fit``.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended to run from within Python")
        return _SettingsCLI(["fit", *arguments]).settings()


def check_same_settings(kept: Mapping[str, Any], settings: Mapping[str, Any], what: str) -> None:
    """Raise unless a folder's trainings were started with the settings that they are to go on with.

    Args:
        kept: nested settings that the folder was started with.
        settings: those of now.
        what: beginning of the message, such as "runs/a has another sweep".

    Raises:
        SettingError: they differ; the message names the first five differences.
    """
    different = different_settings(kept, settings)
    if different:
        raise SettingError(
            f"{what}: {'; '.join(different[:5])}. Give another --out, or the settings that it was started with"
        )


def different_settings(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings in which two nested mappings differ, with both values.

    Example:
        >>> different_settings({"model": {"tau": 1.0, "norm": "batch"}}, {"model": {"tau": 0.5, "norm": "batch"}})
        ['model.tau 1.0 and 0.5']
    """
    found = []
    for key in dict.fromkeys([*a, *b]):
        first, second = a.get(key), b.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += different_settings(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append(f"{prefix}{key} {first} and {second}")
    return found
