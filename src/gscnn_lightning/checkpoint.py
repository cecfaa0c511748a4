"""Checkpoints of ``gscnn-fit`` for use without a trainer."""

from collections.abc import Collection
from typing import Any

import torch

from gscnn_lightning.errors import SettingError
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.trust.checkpoints import read_checkpoint

__all__ = ["chosen_device", "load_task", "read_checkpoint"]


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


def load_task(
    path: str,
    device: str = "auto",
    fold: bool = False,
    trusted_optimizers: Collection[str] = (),
    **settings: Any,  # noqa: ANN401
) -> GSCNNTask:
    """The task of a checkpoint, in evaluation mode. The checkpoint is data: nothing that it names is imported.

    Args:
        path: best.ckpt or last.ckpt of a run.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest there is.
        fold: fold batch normalisation into convolutions, see `GSCNNTask.fold`: takes a fraction of a second, and then
            every picture less time. Leave it where the parameters of the network matter.
        trusted_optimizers: as for `GSCNNTask.load_from_checkpoint`.
        **settings: arguments of `GSCNNTask` that replace those of the checkpoint, such as its window and scales.

    Raises:
        WeightsError: the file is missing, damaged or no checkpoint of this library, or its parts do not go together.
        SettingError: the device is unknown or not there, or a setting is out of range.
    """
    read_checkpoint(path)
    where = chosen_device(device)
    task = GSCNNTask.load_from_checkpoint(path, "cpu", trusted_optimizers=trusted_optimizers, **settings)
    task.eval()
    if fold:
        task.fold()
    return task.to(where)
