"""Checkpoints of ``gscnn-fit``, and networks exported from them, for use without a trainer."""

from collections.abc import Collection
from typing import Any

import torch

from gscnn_lightning.errors import ExportError, SettingError
from gscnn_lightning.exporting.network import ExportedNetwork
from gscnn_lightning.exporting.runtimes import Runtime, is_exported
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.trust.checkpoints import read_checkpoint

__all__ = ["chosen_device", "load_predictor", "load_task", "read_checkpoint", "saved_classes"]


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


def load_predictor(
    path: str,
    device: str = "auto",
    fold: bool = False,
    runtime: Runtime | None = None,
    **settings: Any,  # noqa: ANN401
) -> GSCNNTask | ExportedNetwork:
    """What predicts: the task of a checkpoint, or an exported network in its place.

    Args:
        path: best.ckpt or last.ckpt of a run, or a file of ``gscnn export``, .onnx or .pt2.
        device: as for `load_task`; exported networks run on the CPU, and with onnxruntime-gpu on "cuda".
        fold: as for `load_task`; exported networks are folded.
        runtime: that runs .onnx files, ONNX Runtime by default.
        **settings: how to predict: window, overlap, scales, flip_average.

    Raises:
        WeightsError: as for `load_task`.
        ExportError: the file cannot be used, or a runtime is missing, or asked for where there is nothing to run by it.
        SettingError: a setting is out of range.
    """
    if is_exported(path):
        return ExportedNetwork(path, device, runtime, **settings)
    if runtime is not None:
        raise ExportError(
            f"{path} is a checkpoint, which torch runs: --runtime {runtime} is for .onnx files, which gscnn "
            "export writes"
        )
    return load_task(path, device, fold, **settings)


def saved_classes(path: str, number: int) -> list[str]:
    """Class names of a checkpoint or an exported network; numbers where nobody has named them.

    Args:
        path: of the file.
        number: of classes, where the checkpoint does not tell.

    Raises:
        WeightsError: the checkpoint is missing, damaged or none of this library.
        ExportError: so is the exported network.
    """
    if is_exported(path):
        return ExportedNetwork(path).class_names
    saved = read_checkpoint(path)["hyper_parameters"]
    return list(saved.get("class_names") or map(str, range(saved.get("num_classes", number))))
