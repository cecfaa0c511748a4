"""Trainings that a tool starts: each is a ``gscnn-fit`` process of its own, so that none can harm the others."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gscnn_lightning.errors import SettingError
from gscnn_lightning.run_folder import RunFolder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 60.0

# On Linux a training is ended with the process that has started it, even if that is killed: its values are trained with
# again elsewhere, or here, where there may be no room for both.
_TIED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        code: exit code of its process, 0 for success.
        message: what the process said last about an error, "" if it ended well.
    """

    code: int
    message: str = ""


def logger_arguments(run: RunFolder) -> list[str]:
    """Arguments of ``gscnn-fit`` that make a folder the folder of its run.

    Args:
        run: the folder.
    """
    settings = {"save_dir": run.path.parent, "name": "", "version": run.path.name}
    return ["--trainer.logger=CSVLogger", *(f"--trainer.logger.{key}={value}" for key, value in settings.items())]


class TrainingHeldError(SettingError):
    """Another process has a training."""


@contextmanager
def held(log: Path) -> Iterator[int | None]:
    """Have a training to oneself as long as it runs, where the system has locks; they end with the processes.

    Args:
        log: file that its output goes to.

    Returns:
        A file descriptor for `run_training`, so that a process which outlives this one still holds the training; None
        where there are no locks.

    Raises:
        TrainingHeldError: another process holds it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        yield file.fileno() if _locked(file) else None


def _locked(file: TextIO) -> bool:
    """Lock an open file; False where the system or the file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TrainingHeldError(
            f"{file.name} is being written by another process, which has this training: wait until it has ended, or "
            "give another --out"
        ) from error
    except OSError:
        return False
    return True


def run_training(
    command: Sequence[str], log: Path, on_epoch: Callable[[str], bool], keep_open: int | None = None
) -> Outcome:
    """Run a training to its end, with everything it prints in a file.

    Args:
        command: program and arguments; programs of this Python's environment are found without a path.
        log: file to write.
        on_epoch: called with the line that each epoch ends with; True stops the training.
        keep_open: file descriptor that the training keeps open, see `held`.

    Raises:
        SettingError: the program does not exist.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    # Notebooks ask for colours, which have no place in a file.
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    environment |= {"PATH": path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    command = list(command)
    if sys.platform == "linux" and shutil.which(command[0], path=path):
        command = [sys.executable, "-c", _TIED, str(os.getpid()), *command]
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            pass_fds=() if keep_open is None else (keep_open,),
        )
    except OSError as error:
        raise SettingError(f"{command[0]} cannot be started ({error.strerror}): check the command") from error
    lines: list[str] = []
    try:
        with log.open("w", encoding="utf-8") as file:
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
