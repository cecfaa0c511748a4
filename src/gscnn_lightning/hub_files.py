"""A network as the files of a model hub: ``config.json`` and ``model.safetensors``, read and written as data.

Neither file can name code: one is JSON with known keys, the other tensors and their names.
"""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.plain import fits, kind_text, shown
from gscnn_lightning.version import __version__

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
"""Files of a network on a hub: arguments and classes, tensors, model card."""

HUB = "hf:"
"""How a network on the hub is told from a path: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``."""

_FORMAT = 1
_ARCHITECTURE = "GSCNN"
_LARGEST_CONFIG = 1_000_000
_REMEDY = "give a folder that gscnn publish or save_pretrained has made"

# What a config says beside the network itself, and of which kind it is.
_PARTS: dict[str, Any] = {
    "class_names": list[str] | None,
    "class_colors": list[tuple[int, int, int]] | None,
    "ignore_index": int,
    "boundary_tolerances": list[float],
}
_KEYS: dict[str, Any] = {
    "library": str,
    "library_version": str,
    "format": int,
    "architecture": str,
    "network": dict[str, Any],
    "normalization": dict[str, list[float]],
    **_PARTS,
}


def is_hub_model(path: str | Path) -> bool:
    """Whether a path is the name of a network on the hub, or a folder with one."""
    return str(path).startswith(HUB) or all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def needed(package: str) -> Any:  # noqa: ANN401
    """A module of the extra "hub".

    Raises:
        SettingError: it is not installed.
    """
    try:
        return __import__(package, fromlist=["_"])
    except ImportError as error:
        name = package.partition(".")[0]
        raise SettingError(f"{name} is not installed: pip install 'gscnn-lightning[hub]'") from error


def model_folder(
    name: str | Path,
    revision: str | None = None,
    force_download: bool = False,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder with a network; one on the hub is fetched into the cache of ``huggingface_hub``, if it is not there.

    Args:
        name: of a folder, or ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``.
        revision: branch, tag or commit on the hub.
        force_download: fetch it anew.
        token: for networks that are not public; by default that of ``hf auth login``.
        cache_dir: where to keep it.
        local_files_only: do not ask the network.

    Raises:
        SettingError: the name is none, or the extra "hub" is not installed.
        WeightsError: it is not there, or cannot be fetched.
    """
    if not str(name).startswith(HUB):
        return Path(name)
    matched = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", str(name).removeprefix(HUB))
    if matched is None:
        raise SettingError(f"{name} is no name of a network on the hub: write {HUB}OWNER/NAME")
    own = matched[2] if revision is None else revision
    return _fetched(matched[1], own, force_download, token, cache_dir, local_files_only)


@functools.cache  # one command looks into a network several times
def _fetched(
    repo: str,
    revision: str | None,
    force_download: bool,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> Path:
    hub = needed("huggingface_hub")
    try:
        found = hub.snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    except Exception as error:
        raise WeightsError(f"{HUB}{repo} cannot be fetched ({hub_reason(error)})") from error
    folder = Path(found)
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise WeightsError(f"{HUB}{repo} has no {' and no '.join(absent)}: it is no network of this library")
    return folder


def weights_file(checkpoint: str) -> Path:
    """The file with the weights: a checkpoint itself, or the one of a network of a hub.

    Raises:
        WeightsError: as in `model_folder`.
    """
    return model_folder(checkpoint) / WEIGHTS if is_hub_model(checkpoint) else Path(checkpoint)


def hub_reason(error: Exception) -> str:
    """What went wrong at the hub, and what helps, in one line."""
    kind = type(error).__name__
    told = {
        "GatedRepoError": "it wants its terms accepted on its page, and a token: hf auth login",
        "RepositoryNotFoundError": "there is none of this name, or it is private and needs a token: hf auth login",
        "RevisionNotFoundError": "it has no such revision",
        "LocalEntryNotFoundError": "no network, and it is not in the cache: fetch it once with network, or give a "
        "folder",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set: unset it",
        "LocalTokenNotFoundError": "no token: hf auth login, or HF_TOKEN",
    }
    if kind in told:
        return told[kind]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub answers {status}: a token with the right to it is needed: hf auth login, or HF_TOKEN"
    if status is None and any(base.__name__ in ("TransportError", "ConnectionError") for base in type(error).__mro__):
        return f"no network: {kind}; try again with network"
    line = " ".join(str(error).split())
    return f"{kind}: {line[:200]}"


def hub_config(
    network: Mapping[str, Any],
    normalization: Mapping[str, list[float]],
    class_names: list[str] | None = None,
    class_colors: list[tuple[int, int, int]] | None = None,
    ignore_index: int = 255,
    boundary_tolerances: list[float] | None = None,
) -> dict[str, Any]:
    """Content of a ``config.json``.

    Args:
        network: all arguments of the network.
        normalization: "mean" and "std" of RGB in [0, 1], which the network applies itself.
        class_names: K names, or None.
        class_colors: K RGB colours, 0 to 255, or None.
        ignore_index: label of void pixels.
        boundary_tolerances: what the boundary F-score is measured at, in pixels, or fractions of the diagonal below 1.
    """
    return {
        "library": "gscnn-lightning",
        "library_version": __version__,
        "format": _FORMAT,
        "architecture": _ARCHITECTURE,
        "network": {**network, "pretrained": False, "backbone_weights": None},
        "normalization": dict(normalization),
        "class_names": class_names,
        "class_colors": class_colors,
        "ignore_index": ignore_index,
        "boundary_tolerances": [3.0, 5.0, 9.0, 12.0] if boundary_tolerances is None else boundary_tolerances,
    }


def write_model(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors``; what else is in the folder stays.

    Args:
        folder: it is made.
        config: from `hub_config`.
        state: tensors of the network by name.

    Raises:
        SettingError: the extra "hub" is not installed, or the folder is none.
    """
    save = needed("safetensors.torch").save
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder} is a file: give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    # Each in memory of its own and in the usual order of its axes, as the file format has it.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    for name, write in {
        WEIGHTS: lambda path: path.write_bytes(save(tensors, metadata={"format": "pt"})),
        CONFIG: lambda path: path.write_text(
            json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        ),
    }.items():
        part = folder / f".{name}.part"
        write(part)
        part.replace(folder / name)


def read_hub_config(folder: Path, name: str = "") -> dict[str, Any]:
    """Content of the ``config.json`` of a folder, with known keys of known types; a network's own are not looked at.

    Args:
        folder: with the files.
        name: what messages call it.

    Raises:
        WeightsError: it is missing, damaged, of another library or a later version, or a key is unknown.
    """
    path = folder / CONFIG
    called = f"{name or folder}: {CONFIG}"
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise WeightsError(f"{called} has {path.stat().st_size} bytes, and is no config of this library: {_REMEDY}")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise WeightsError(f"{called} cannot be read ({reason}): {_REMEDY}") from error
    if not isinstance(config, dict) or config.get("architecture") != _ARCHITECTURE:
        own = config.get("architecture", config.get("architectures")) if isinstance(config, dict) else config
        raise WeightsError(f"{called} is of another kind of network ({shown(own)}): {_REMEDY}")
    if config.get("format") != _FORMAT:
        raise WeightsError(
            f"{called} has format {shown(config.get('format'))}, this version knows {_FORMAT}: pip install --upgrade "
            "gscnn-lightning"
        )
    for key, value in config.items():
        if key not in _KEYS:
            raise WeightsError(f"{called} has {shown(key)}, which is no part of it: {_REMEDY}")
        if not fits(value, _KEYS[key]):
            raise WeightsError(f"{called}: {key} is {shown(value)}, not {kind_text(_KEYS[key])}: {_REMEDY}")
    if absent := [key for key in _KEYS if key not in config]:
        raise WeightsError(f"{called} has no {absent[0]}: {_REMEDY}")
    for key, value in config["network"].items():
        if isinstance(value, dict | list):
            raise WeightsError(f"{called}: network.{key} is {shown(value)}, no number or text: {_REMEDY}")
    return config


def read_tensors(folder: Path, name: str = "", device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of the ``model.safetensors`` of a folder, mapped from the file.

    Args:
        folder: with the files.
        name: what messages call it.
        device: where they are to be.

    Raises:
        SettingError: the extra "hub" is not installed.
        WeightsError: the file is missing or damaged.
    """
    load_file = needed("safetensors.torch").load_file
    try:
        return load_file(str(folder / WEIGHTS), device=device)
    except GSCNNError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{name or folder}: {WEIGHTS} cannot be read ({type(error).__name__}: {reason}): it is damaged; {_REMEDY}"
        ) from error


def checked_normalization(config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise unless what a config says of the normalisation is what the network does.

    Raises:
        WeightsError: the two differ.
    """
    for part in ("mean", "std"):
        said, own = config["normalization"].get(part, []), tensors.get(f"backbone.{part}")
        if own is None or said != own.flatten().tolist():
            raise WeightsError(
                f"{name}: {CONFIG} says normalization.{part} {shown(said)}, {WEIGHTS} has "
                f"{'none' if own is None else own.flatten().tolist()}: the two are of different networks; {_REMEDY}"
            )


def read_as_checkpoint(name: str | Path) -> dict[str, Any]:
    """A network of a hub in the form of a checkpoint of a training that has ended: weights and settings alone.

    Args:
        name: as for `model_folder`.

    Raises:
        SettingError: as in `model_folder`.
        WeightsError: a file is missing or damaged, or the two do not go together.
    """
    folder = model_folder(name)
    config = read_hub_config(folder, str(name))
    tensors = read_tensors(folder, str(name))
    checked_normalization(config, tensors, str(name))
    settings = {key: config[key] for key in _PARTS if config[key] is not None}
    return {
        "state_dict": {f"network.{key}": tensor for key, tensor in tensors.items()},
        "hyper_parameters": {**config["network"], **settings},
        "pytorch-lightning_version": "2.6.6",
    }
