"""Settings out of checkpoints and run folders: known names and types, and classes that are known to be harmless."""

import inspect
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.models.pretrained import check_saved_settings
from gscnn_lightning.plain import altered, fits, shown
from gscnn_lightning.shipped_configs import read_config

TRUSTED_OPTIMIZERS = "GSCNN_TRUSTED_OPTIMIZERS"
"""Environment variable with class paths, separated by commas, that checkpoints may name as their optimizer."""

CODE = ("class_path", "_class_path", "_instantiator")
"""Keys by which Lightning and jsonargparse find what to import and to call."""

_WRITTEN_BY_LIGHTNING = {"_instantiator": "pytorch_lightning.cli.instantiate_module"}
"""What Lightning's command line adds to all hyperparameters; passed over, as nothing here calls it."""


def check_optimizer_class(class_path: object, name: str, trusted: Collection[str] = ()) -> None:
    """Raise unless a checkpoint's optimizer is one of torch or timm, or of those that the user has named.

    Args:
        class_path: of the checkpoint.
        name: what the checkpoint is called.
        trusted: class paths that the user has named, beside those in the environment variable `TRUSTED_OPTIMIZERS`.

    Raises:
        WeightsError: it is another; nothing was imported.
    """
    own = {*trusted, *map(str.strip, os.environ.get(TRUSTED_OPTIMIZERS, "").split(","))}
    if isinstance(class_path, str) and class_path and class_path in own:
        return
    found = _known_class(class_path, ("torch.optim", "timm.optim"), Optimizer)
    if found is None or found is Optimizer:
        raise WeightsError(
            f"{name} names {shown(class_path)} as its optimizer, which is no optimizer of torch.optim or timm.optim, "
            f"and nothing of it was imported. If it is yours, name it: --optimizer of gscnn-fit, the environment "
            f"variable {TRUSTED_OPTIMIZERS}, or trusted_optimizers in Python"
        )


def _known_class(class_path: object, packages: Sequence[str], base: type) -> type | None:
    """A class by its path, if it is in one of some packages, which are imported, and nothing is imported for it."""
    module, _, name = str(class_path).rpartition(".")
    if not isinstance(class_path, str) or not any(f"{module}.".startswith(f"{package}.") for package in packages):
        return None
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, base) else None


def checked_hyperparameters(
    content: Mapping[str, Any],
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    trusted: Collection[str] = (),
) -> dict[str, Any]:
    """Hyperparameters of a checkpoint, each an argument of its task and of the type of that.

    Weights are never fetched for a checkpoint, which has its own.

    Args:
        content: of the checkpoint.
        name: what it is called.
        parameters: arguments of the task and its network.
        trusted: as for `check_optimizer_class`.

    Raises:
        WeightsError: one is unknown, of another type, larger than the weights, or names a class that is not trusted.
    """
    saved = dict(content.get("hyper_parameters", {}))
    for key, value in _WRITTEN_BY_LIGHTNING.items():
        if saved.get(key) == value:
            del saved[key]
    check_saved_settings(saved, name, parameters, content.get("state_dict", {}))
    optimizer = saved.get("optimizer")
    if optimizer is not None:
        parts = [value for key, value in optimizer.items() if key != "class_path"]
        if not set(optimizer) <= {"class_path", "init_args", "dict_kwargs"} or not all(map(_are_arguments, parts)):
            raise altered(name, f"optimizer in its hyper_parameters is {shown(optimizer)}")
        check_optimizer_class(optimizer.get("class_path"), name, trusted)
    absent = {key: value for key, value in (("pretrained", False), ("backbone_weights", None)) if key in parameters}
    return {**saved, **absent} if saved else saved


def _are_arguments(value: object) -> bool:
    """Whether a value is a mapping of names to numbers, texts, and lists of them."""
    plain = str | float | bool | None
    return isinstance(value, dict) and all(
        isinstance(key, str) and fits(part, plain | list[plain]) for key, part in value.items()
    )


def check_run_data(config: Path) -> None:
    """Raise unless the data module that a run's config names is one of this library, which may be made unasked.

    Raises:
        SettingError: it is another, or a part of it names something else to import; nothing of it was imported.
    """
    part = read_config(config).get("data")
    if part is None:
        return
    settings = part if isinstance(part, dict) else {"class_path": part}
    class_path = settings.get("class_path", "ScenesDataModule")
    full = f"gscnn_lightning.data.{class_path}" if "." not in str(class_path) else class_path
    known = _known_class(full, ("gscnn_lightning.data",), SegmentationDataModule)
    named = str(class_path) if known is None else next(iter(_named_code(settings)), None)
    if named is not None:
        raise SettingError(
            f"{config} names {shown(named)}, which is no data module of this library, and what lies in a run folder "
            f"is data: nothing of it was imported. If you trust it, say so: --config {config}, or choose with --data"
        )


def _named_code(value: object, outermost: bool = True) -> list[str]:
    """What a part of a config names for import, below its own class."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [str(value[key]) for key in CODE if key in value] if isinstance(value, dict) and not outermost else []
    return own + [name for part in parts for name in _named_code(part, outermost=False)]
