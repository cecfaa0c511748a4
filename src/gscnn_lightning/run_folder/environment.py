"""What a run was made with: versions, hardware, command and code, as plain data."""

import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gscnn_lightning.version import __version__

_PACKAGES = ("torch", "pytorch-lightning", "timm", "albumentations", "numpy")


def environment(gpus: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, hardware, command and code of this process, without names of hosts and users.

    Args:
        gpus: names of the GPUs.

    Returns:
        Flat, fit for JSON: "gscnn_lightning", "python" and the main packages with their versions (None if not
        installed), "platform", "processor", "gpus" (list of names), "command" (list of arguments, the user's folder
        written as ~), "started" (local time, ISO 8601) and "code", see `code_version`.
    """
    return {
        "gscnn_lightning": __version__,
        "python": platform.python_version(),
        **{name.replace("-", "_"): _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "gpus": list(gpus),
        "command": [Path(sys.argv[0]).name, *(_without_home(argument) for argument in sys.argv[1:])],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "code": code_version(),
    }


def code_version(folder: Path | None = None) -> str | None:
    """Commit of the git repository around a folder, with "+changes" if files that it tracks have been changed.

    Where git does not tell whether they have, as in a very large repository, it ends in "+unknown".

    Args:
        folder: any folder in it; the working directory by default.

    Returns:
        None outside of a repository, or without git.
    """
    commit = _git(["rev-parse", "HEAD"], folder)
    if commit is None:
        return None
    changes = _git(["status", "--porcelain", "--untracked-files=no"], folder)
    return commit + ("+unknown" if changes is None else "+changes" if changes else "")


def _git(arguments: list[str], folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The model's name where the system tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _without_home(argument: str) -> str:
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?=/|$)", "~", argument) if len(home) > 1 else argument
