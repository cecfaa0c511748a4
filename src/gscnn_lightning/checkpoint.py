"""Checkpoints of ``gscnn-fit`` for use without a trainer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.task import GSCNNTask


def read_checkpoint(path: str) -> dict[str, Any]:
    """Content of a checkpoint, with tensors that have a shape and no memory.

    Raises:
        WeightsError: the file is missing, damaged or no checkpoint of this library.
    """
    _check_file(path)
    try:
        content = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:
        raise WeightsError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged or no checkpoint. "
            "Give the best.ckpt or last.ckpt of a run"
        ) from error
    parts = [content.get(name) for name in ("state_dict", "hyper_parameters")] if isinstance(content, dict) else [None]
    if not all(isinstance(part, Mapping) for part in parts):
        raise WeightsError(f"{path} is no checkpoint of gscnn-fit: it has no state_dict or no hyper_parameters")
    return content


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
        torch.ones(1, device=where).item()  # the meta device has no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = "it holds no numbers" if device == "meta" else str(error).splitlines()[0]
        raise SettingError(f"device {device!r} cannot be used ({reason}): try cpu") from error
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
        WeightsError: the file is missing, damaged or no checkpoint of this library, or its parts do not go together.
        SettingError: the device is unknown or not there, or a setting is out of range.
    """
    read_checkpoint(path)
    where = chosen_device(device)
    try:
        # weights_only, as a checkpoint may come from anywhere.
        task = GSCNNTask.load_from_checkpoint(path, map_location="cpu", weights_only=True, **settings)
    except Exception as error:
        if isinstance(error, SettingError) and str(error).startswith(tuple(settings)):
            raise  # what was asked for, not what is in the file
        reason = " ".join(str(error).split())[:300].removeprefix("the checkpoint ")
        kind = "" if isinstance(error, GSCNNError) else f"{type(error).__name__}: "
        raise WeightsError(f"checkpoint {path} cannot be used: {kind}{reason}") from error
    task.eval()
    if fold:
        task.fold()
    return task.to(where)
