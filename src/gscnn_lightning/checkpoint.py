"""Checkpoints of ``gscnn-fit`` for use without a trainer."""

from pathlib import Path
from typing import Any

import torch

from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.task import GSCNNTask


def check_checkpoint(path: str | None) -> None:
    """Raise if a checkpoint cannot be read.

    Args:
        path: file, None, or one of Lightning's words such as "best" and "last".

    Raises:
        WeightsError: the file is missing, or is no checkpoint of this library.
    """
    if path is None or path in ("best", "last", "hpc", "registry"):
        return
    _check_file(path)
    try:
        keys = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:
        raise WeightsError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or no checkpoint. "
            "Give the best.ckpt or last.ckpt of a run"
        ) from error
    if not isinstance(keys, dict) or "state_dict" not in keys or "hyper_parameters" not in keys:
        raise WeightsError(f"{path} is no checkpoint of gscnn-fit: it has no state_dict or no hyper_parameters")


def _check_file(path: str) -> None:
    if Path(path).is_dir():
        inside = RunFolder(Path(path)).best_checkpoint
        remedy = f"did you mean {inside}?" if inside.is_file() else "give best.ckpt or last.ckpt of a run"
        raise WeightsError(f"checkpoint {path} is a folder: {remedy}")
    if not Path(path).is_file():
        raise WeightsError(f"checkpoint {path} does not exist: check the path")


def chosen_device(device: str = "auto") -> torch.device:
    """The device of a name.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest there is.

    Raises:
        SettingError: the device is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}): try cpu") from error
    return where


def load_task(path: str, device: str = "auto", fold: bool = False, **settings: Any) -> GSCNNTask:  # noqa: ANN401
    """The task of a checkpoint, in evaluation mode.

    Args:
        path: best.ckpt or last.ckpt of a run.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest there is.
        fold: fold batch normalisation into convolutions, see `GSCNNTask.fold`: takes a fraction of a second, and then
            every picture less time. Leave it where the parameters of the network matter.
        **settings: arguments of `GSCNNTask` that replace those of the checkpoint, such as its window and scales.

    Raises:
        WeightsError: the file is missing, damaged or no checkpoint of this library.
        SettingError: the device is unknown or not there.
    """
    _check_file(path)
    check_checkpoint(path)
    where = chosen_device(device)
    # weights_only, as a checkpoint may come from anywhere.
    task = GSCNNTask.load_from_checkpoint(path, map_location="cpu", weights_only=True, **settings)
    task.eval()
    if fold:
        task.fold()
    return task.to(where)
