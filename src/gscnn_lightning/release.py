"""The published Gated-SCNN checkpoint in this library: read, checked, converted."""

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gscnn_lightning.checks import check_whole
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.weights import check_fit, read_state_dict
from gscnn_lightning.models.wider_resnet import released_name as released_trunk_name

if TYPE_CHECKING:
    from gscnn_lightning.task import GSCNNTask

BACKBONE = "wider_resnet38_a2"
NUM_CLASSES = 19
SETTINGS: dict[str, Any] = {"backbone": BACKBONE, "output_stride": 8, "image_gradient": "release"}
"""Arguments of ``GSCNN`` and ``GSCNNTask`` that make the published network."""

_CLASSIFIER = "final_seg.6.weight"
_UNUSED = {"dsn1.weight": (1, 64, 1, 1), "dsn1.bias": (1,)}  # saved with the published network, which never reads them

_MODULES = {
    "skip_project": "bot_fine",
    "aspp_project": "bot_aspp",
    "boundary_fusion": "cw",
    "shape_stream.boundary": "fuse",
    "shape_stream.gating.0": "dsn3",
    "shape_stream.gating.1": "dsn4",
    "shape_stream.gating.2": "dsn7",
    "decoder.2": "final_seg.6",
}
_PATTERNS = (
    (r"decoder\.(\d)\.(\d)", lambda m: f"final_seg.{3 * int(m[1]) + int(m[2])}"),
    (r"aspp\.pool\.(\d)", lambda m: f"aspp.img_conv.{m[1]}"),
    (r"aspp\.boundary\.(\d)", lambda m: f"aspp.edge_conv.{m[1]}"),
    (r"aspp\.branches\.(\d\.\d)", lambda m: f"aspp.features.{m[1]}"),
    (r"shape_stream\.reduce\.(\d)", lambda m: f"d{int(m[1]) + 1}"),
    (r"shape_stream\.blocks\.(\d)\.conv(\d)", lambda m: f"res{int(m[1]) + 1}.conv{m[2]}"),
    (r"shape_stream\.blocks\.(\d)\.norm(\d)", lambda m: f"res{int(m[1]) + 1}.bn{m[2]}"),
    (r"shape_stream\.gates\.(\d)\.gate\.(\d)", lambda m: f"gate{int(m[1]) + 1}._gate_conv.{m[2]}"),
    (r"shape_stream\.gates\.(\d)\.conv", lambda m: f"gate{int(m[1]) + 1}"),
)

_log = logging.getLogger(__name__)


def released_name(name: str) -> str:
    """Name that the published checkpoint gives to a parameter or buffer of ``GSCNN`` on WideResNet-38.

    Args:
        name: as in ``GSCNN.state_dict()``, except the normalisation of the input, which the checkpoint has not.

    Example:
        >>> released_name("backbone.encoder.conv1.weight"), released_name("shape_stream.gates.2.conv.weight")
        ('mod1.conv1.weight', 'gate3.weight')
    """
    if name.startswith("backbone.encoder."):
        return released_trunk_name(name.removeprefix("backbone.encoder."))
    module, _, leaf = name.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{leaf}"
    found = next(rename(m) for pattern, rename in _PATTERNS if (m := re.fullmatch(pattern, module)))
    return f"{found}.{leaf}"


def load_release_checkpoint(path: str | Path, num_classes: int | None = None) -> GSCNN:
    """The network of the published Gated-SCNN checkpoint, in eval mode.

    Args:
        path: the file, as `read_release_checkpoint` takes it.
        num_classes: number of classes K. By default the 19 of Cityscapes, which the file must have. If given, and the
            file has others, the last layer is left out: it starts from random weights, and a warning is logged.

    Returns:
        ``GSCNN`` on "wider_resnet38_a2" at output stride 8 with ``image_gradient="release"``.

    Raises:
        WeightsError: the file cannot be read or does not fit; the message names the first names and shapes that do not.
        ValueError: ``num_classes`` is below 2.
    """
    weights = read_release_checkpoint(path, num_classes)
    network = GSCNN(NUM_CLASSES if num_classes is None else num_classes, pretrained=False, **SETTINGS)
    state = network.state_dict()
    state.update(weights)
    network.load_state_dict(state)
    return network.eval()


def import_release(file: Path, out: Path, num_classes: int | None = None, overwrite: bool = False) -> None:
    """Write the published checkpoint as one of this library, which `gscnn-fit validate --ckpt_path` takes.

    Args:
        file: the published checkpoint.
        out: file to write; it is complete or not there.
        num_classes: as in `load_release_checkpoint`.
        overwrite: replace an existing file.

    Raises:
        SettingError: ``out`` exists, or its folder does not.
        WeightsError: as in `load_release_checkpoint`.
    """
    from gscnn_lightning.task import GSCNNTask

    if out.exists() and not overwrite:
        raise SettingError(f"{out} exists: give another --out, or --overwrite true to replace it")
    if not out.parent.is_dir():
        raise SettingError(f"{out.parent} is no folder: create it, or give another --out")
    network = load_release_checkpoint(file, num_classes)
    names = list(CITYSCAPES.names) if network.num_classes == len(CITYSCAPES) else None
    task = GSCNNTask(network.num_classes, names, pretrained=False, loss_variant="release", **SETTINGS)
    task.network.load_state_dict(network.state_dict())
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        torch.save(lightning_checkpoint(task), part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def lightning_checkpoint(task: "GSCNNTask") -> dict[str, Any]:
    """What Lightning saves of a task before any training: hyperparameters and weights, without optimizer.

    Args:
        task: the task.

    Returns:
        A mapping for ``torch.save``; ``GSCNNTask.load_from_checkpoint`` and ``gscnn-fit validate`` take the file.
    """
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": pl.__version__,
        "state_dict": task.state_dict(),
        "hparams_name": "kwargs",
        "hyper_parameters": dict(task.hparams),
    }
    task.on_save_checkpoint(checkpoint)
    return checkpoint


def read_release_checkpoint(path: str | Path, num_classes: int | None = None) -> dict[str, Tensor]:
    """Weights of the published Gated-SCNN checkpoint under the names of ``GSCNN``, every one of them checked.

    The file is read with ``weights_only``, in every form in which it is about: bare or a training snapshot, with or
    without "module." in front of the names, with or without batch counters and the never used layer ``dsn1``. Every
    other name and every shape must fit.

    Args:
        path: the file.
        num_classes: as in `load_release_checkpoint`.

    Returns:
        State dict of ``GSCNN`` without the normalisation of the input, which the published program leaves to its data.

    Raises:
        WeightsError: as in `load_release_checkpoint`.
    """
    if num_classes is not None:
        check_whole("num_classes", num_classes, 2)
    given = read_state_dict(path)
    if "classifier.fc.weight" in given:
        raise WeightsError(
            f"{path} is an ImageNet trunk, not Gated-SCNN: give it as backbone_weights (--model.backbone_weights FILE) "
            f"of the backbone {BACKBONE}"
        )
    for name, shape in _UNUSED.items():
        if name in given and given[name].shape == shape:
            del given[name]
    with torch.device("meta"):
        network = GSCNN(num_classes or NUM_CLASSES, pretrained=False, **SETTINGS)
    state = network.state_dict()
    own = {released_name(name): name for name in state if name not in ("backbone.mean", "backbone.std")}
    wanted = {released: state[name] for released, name in own.items()}
    classifier = given.get(_CLASSIFIER)
    if classifier is not None and classifier.shape[:1] != wanted[_CLASSIFIER].shape[:1]:
        if num_classes is None:
            raise WeightsError(
                f"{path} has {_CLASSIFIER} {tuple(classifier.shape)}, but the published checkpoint has {NUM_CLASSES} "
                "classes: give num_classes if another number is meant"
            )
        del given[_CLASSIFIER], wanted[_CLASSIFIER]
        _log.warning(
            "%s: %s %s was left out, as %d classes were asked for; the last layer starts from random weights",
            *(path, _CLASSIFIER, tuple(classifier.shape), num_classes),
        )
    check_fit(given, wanted, path, f"Gated-SCNN with {num_classes or NUM_CLASSES} classes on WideResNet-38")
    return {own[name]: value for name, value in given.items()}
