"""Checkpoint files, read as plain data: tensors, numbers, texts, and mappings and lists of them."""

import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric.utilities.cloud_io import get_filesystem
from torch import Tensor

from gscnn_lightning.errors import WeightsError
from gscnn_lightning.hub_files import CONFIG, WEIGHTS, is_hub_model, read_as_checkpoint
from gscnn_lightning.models.weights import odd_tensor
from gscnn_lightning.plain import altered, fits, kind_text, shown
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.trust.settings import CODE

_CODE_PLACES = ("hyper_parameters", "hyper_parameters.optimizer")
"""Where such keys are looked at one by one."""

_MOST_VALUES = 10_000_000


def read_checkpoint(path: str) -> dict[str, Any]:
    """Content of a checkpoint of this library, checked as plain data, with tensors that have a shape and no memory.

    Args:
        path: of the file, or a network of a hub as `hub_files.model_folder` takes it.

    Raises:
        WeightsError: as in `read_content`, or it is none of this library.
    """
    content = read_content(path)
    _check_parts(content, path)
    return content


def read_content(path: str) -> dict[str, Any]:
    """Content of a checkpoint of any task, checked as plain data, with tensors that have a shape and no memory.

    Raises:
        WeightsError: the file is missing, damaged or no checkpoint, or holds something else than data.
    """
    if is_hub_model(path):
        return check_content(read_as_checkpoint(path), path)
    _check_file(path)
    name = f"checkpoint {path}"
    try:
        # Mapped, not read: on the meta device tensors without numbers could not be told from the others.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with zipfile.ZipFile(path) as file:
            is_compressed = any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist())
    except Exception as error:
        foreign = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?) (\S+)", str(error))
        reason = f"it holds Python objects, {foreign[1]} first" if foreign else type(error).__name__
        raise WeightsError(
            f"{name} cannot be read ({reason}): it is damaged or no checkpoint. Give the best.ckpt or last.ckpt of "
            "a run"
        ) from error
    if is_compressed:
        raise WeightsError(f"{name} is compressed, which no checkpoint is: give best.ckpt or last.ckpt of a run")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise WeightsError(f"{path} is no checkpoint of gscnn-fit: it has no state_dict or no hyper_parameters")
    return check_content(content, name, Path(path).stat().st_size)


def load_weights(path: str | Path | IO[bytes], map_location: Any = None) -> dict[str, Any]:  # noqa: ANN401
    """Content of a checkpoint with its numbers.

    Args:
        path: the file, its address, or a file that is open.
        map_location: as for ``torch.load``.

    Raises:
        WeightsError: as in `read_checkpoint`.
    """
    if isinstance(path, str | Path) and "://" in str(path):
        with get_filesystem(path).open(str(path), "rb") as file:
            path = io.BytesIO(file.read())
    if isinstance(path, str | Path):
        read_checkpoint(str(path))
        if is_hub_model(path):
            content = read_as_checkpoint(path)
            return {**content, "state_dict": {k: _moved(v, map_location) for k, v in content["state_dict"].items()}}
        return torch.load(path, map_location=map_location, weights_only=True)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} cannot be read ({type(error).__name__}): it is no checkpoint") from error
    _check_parts(content, str(path))
    check_content(content, "the checkpoint")
    return content


def _moved(tensor: Tensor, map_location: Any) -> Tensor:  # noqa: ANN401
    """A tensor where it is to be, as far as that is the name of a device."""
    return tensor.to(map_location) if isinstance(map_location, str | torch.device) else tensor


def _check_file(path: str) -> None:
    if Path(path).is_dir():
        inside = RunFolder(Path(path)).best_checkpoint
        parts = [part for part in (CONFIG, WEIGHTS) if (Path(path) / part).is_file()]
        if len(parts) == 1 and not inside.is_file():
            raise WeightsError(
                f"{path} has {parts[0]} alone: a network for a hub is {CONFIG} and {WEIGHTS}, as gscnn publish writes"
            )
        remedy = f"did you mean {inside}?" if inside.is_file() else "give best.ckpt or last.ckpt of a run"
        raise WeightsError(f"checkpoint {path} is a folder: {remedy}")
    if not Path(path).is_file():
        raise WeightsError(f"checkpoint {path} does not exist: check the path")


def _check_parts(content: object, path: str) -> None:
    parts = [content.get(name) for name in ("state_dict", "hyper_parameters")] if isinstance(content, dict) else [None]
    if not all(isinstance(part, Mapping) for part in parts):
        raise WeightsError(f"{path} is no checkpoint of gscnn-fit: it has no state_dict or no hyper_parameters")


def check_content(content: Mapping[str, Any], name: str, size: float = math.inf) -> dict[str, Any]:
    """Raise unless a checkpoint holds plain data: usual tensors, numbers, texts, and mappings and lists of them.

    Args:
        content: of the file.
        name: what the checkpoint is called.
        size: of the file in bytes; no tensor can have more.

    Returns:
        The same with tensors on the meta device.

    Raises:
        WeightsError: something else is in it, or something that Lightning would import; the message says where.
    """
    done: dict[int, tuple[Any, int]] = {}

    def walked(value: Any, place: str) -> tuple[Any, int]:  # noqa: ANN401
        """The value with tensors on the meta device, and how many values it is."""
        if isinstance(value, Tensor):
            odd = odd_tensor(value)
            if not odd and value.nbytes > min(size, value.untyped_storage().nbytes()):
                odd = "larger than what the file has of it"
            if odd:
                raise altered(name, f"{place} is a tensor that is {odd}")
            return torch.empty_like(value, device="meta"), 1
        if not isinstance(value, dict | list | tuple):
            return value, 1
        if id(value) in done:
            return done[id(value)]
        done[id(value)] = None, _MOST_VALUES  # met again before it is done, it is within itself
        if isinstance(value, dict):
            if code := [key for key in value if isinstance(key, str) and key in CODE and place not in _CODE_PLACES]:
                raise altered(name, f"{place}.{code[0]} names something to import")
            parts = {key: walked(part, f"{place}.{key}".removeprefix(".")) for key, part in value.items()}
            made: Any = {key: part for key, (part, _) in parts.items()}
            count = sum(number for _, number in parts.values())
        else:
            items = [walked(part, f"{place}[{index}]") for index, part in enumerate(value)]
            made = type(value)(part for part, _ in items) if type(value) in (list, tuple) else value
            count = sum(number for _, number in items)
        if count >= _MOST_VALUES:
            raise altered(name, f"{place} has the same parts in itself over and over")
        done[id(value)] = made, count + 1
        return done[id(value)]

    try:
        shapes, _ = walked(dict(content), "")
    except RecursionError as error:
        raise altered(name, "it is nested without end") from error
    for key, tensor in content.get("state_dict", {}).items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise altered(name, f"state_dict.{key} is {shown(tensor)}, no tensor")
    kinds = {"epoch": int, "global_step": int, "pytorch-lightning_version": str, "wandb_run_id": str | None}
    for key, kind in kinds.items():
        if key in content and not fits(content[key], kind):
            raise altered(name, f"{key} is {shown(content[key])}, not {kind_text(kind)}")
    if not re.fullmatch(r"[\w.-]{0,128}", content.get("wandb_run_id") or ""):
        raise altered(name, f"wandb_run_id is {shown(content['wandb_run_id'])}, no id of a run")
    return shapes
