"""What the benchmarks of networks measure: networks of a config, made batches, one training step, and a peer."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.bench.machine import Precision, autocast, checked_precision
from gscnn_lightning.checkpoint import chosen_device
from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.data.scenes import draw_scene
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import data_module, parsed_settings
from gscnn_lightning.parsing import option_values
from gscnn_lightning.task import Batch, GSCNNTask, made_optimizer

TWO_STREAM, CONTROL, PEER = "two-stream", "control", "smp DeepLabV3+"

_SCENE = (512, 1024)


@dataclass(frozen=True)
class Subject:
    """What ``gscnn-fit`` would train, and on what it is measured.

    Attributes:
        arguments: those of ``gscnn-fit fit``.
        settings: what it makes of them, as plain data.
        data: its data module, before its `setup`.
        device: where to compute.
        precision: in which precision.
    """

    arguments: tuple[str, ...]
    settings: Mapping[str, Any]
    data: SegmentationDataModule
    device: torch.device
    precision: Precision

    def task(self, **changed: Any) -> GSCNNTask:  # noqa: ANN401
        """A task with random weights, the same ones at every call, on the device.

        Args:
            **changed: arguments of `GSCNNTask` in place of the config's.
        """
        given = {**self.settings["model"], "pretrained": False, "backbone_weights": None, **changed}
        torch.manual_seed(0)
        task = GSCNNTask(
            self.data.num_classes, ignore_index=self.data.ignore_index, optimizer=self.settings["optimizer"], **given
        )
        return task.to(self.device)

    def batch(self, size: tuple[int, int, int]) -> Batch:
        """A made training batch on the device, as the data module would give it.

        Args:
            size: number of images, height, width.
        """
        images, labels = drawn_frames(*size, self.data.num_classes, self.data.ignore_index)
        batch: Batch = {"image": images.to(self.device), "mask": labels.to(self.device)}
        return self.data.on_after_batch_transfer(batch, 0)

    def autocast(self) -> Any:  # noqa: ANN401
        """The context of a forward pass."""
        return autocast(self.device, self.precision)


def chosen_subject(others: Sequence[str], config: str, device: str, precision: str) -> Subject:
    """What to measure.

    Args:
        others: arguments of ``gscnn-fit fit``.
        config: config where they name none.
        device: as for `chosen_device`.
        precision: "config" for the config's.

    Raises:
        SettingError: a setting cannot be used.
    """
    arguments = tuple(others) if option_values(others, "--config") else ("--config", config, *others)
    where = chosen_device(device)
    settings = parsed_settings(arguments)
    chosen = checked_precision(settings["trainer"].get("precision") if precision == "config" else precision, where)
    return Subject(arguments, settings, data_module(arguments), where, chosen)


def check_size(size: Sequence[int]) -> None:
    """Raise unless the network takes images of this size.

    Args:
        size: any numbers, height and width in pixels.

    Raises:
        SettingError: it does not.
    """
    if min(size[:-2], default=1) < 1 or min(size[-2:]) < 32:
        shown = "x".join(map(str, size))
        raise SettingError(f"size {shown} is too small: use at least one image and 32x32 pixels")


def drawn_frames(
    count: int, height: int, width: int, num_classes: int, ignore_index: int = 255
) -> tuple[Tensor, Tensor]:
    """Drawn street scenes of any size, the lowest sixteenth of their labels void.

    Args:
        count: number of scenes B.
        height: in pixels.
        width: in pixels.
        num_classes: number of classes K; of more than K the others count as one of them.
        ignore_index: label of void pixels.

    Returns:
        (B, 3, H, W) uint8 images and (B, H, W) uint8 labels.
    """
    images = np.empty((count, 3, height, width), np.uint8)
    masks = np.empty((count, height, width), np.uint8)
    for index in range(count):
        image, labels = draw_scene(index, size=_SCENE)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        images[index] = image.transpose(2, 0, 1)
        masks[index] = np.where(labels == 255, ignore_index, labels % num_classes)
    masks[:, height - max(1, height // 16) :] = ignore_index
    return torch.from_numpy(images), torch.from_numpy(masks)


class TrainingStep:
    """One whole step of a training, as Lightning's automatic optimization takes it, without Lightning.

    Forward pass, losses, backward pass, clipping and optimizer.

    Args:
        subject: config with precision and clipping.
        loss: loss of a batch.
        network: what is trained; its optimizer is the config's.
    """

    def __init__(self, subject: Subject, loss: Callable[[Batch], Tensor], network: nn.Module) -> None:
        self.loss = loss
        self._subject = subject
        trainer, model = subject.settings["trainer"], subject.settings["model"]
        rates = (model["backbone_lr_scale"], model.get("layer_decay"))
        self.optimizer = made_optimizer(network, subject.settings["optimizer"], *rates)
        # In the optimizer's order, as Lightning has them: their norm is then the same to the last digit.
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._clip, self._by_value = trainer.get("gradient_clip_val"), trainer.get("gradient_clip_algorithm") == "value"
        self._scaler = torch.amp.GradScaler(subject.device.type, enabled=subject.precision == "16-mixed")

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        with self._subject.autocast():
            return self.loss(batch)

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch; returns its loss."""
        loss = self.forward(batch)
        self.optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        if self._clip:
            self._scaler.unscale_(self.optimizer)
            clip = nn.utils.clip_grad_value_ if self._by_value else nn.utils.clip_grad_norm_
            clip(self._parameters, self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()


def task_step(subject: Subject, compile: bool = False, **changed: Any) -> tuple[GSCNNTask, TrainingStep]:  # noqa: ANN401
    """A task in training mode, and its step with the joint loss.

    Args:
        subject: what to train.
        compile: as for `GSCNNTask`.
        **changed: as for `Subject.task`.
    """
    task = subject.task(compile=compile, **changed).train()
    return task, TrainingStep(subject, lambda batch: task.training_losses(batch)["loss"], task.network)


class Peer(nn.Module):
    """DeepLabV3+ of ``segmentation_models_pytorch`` on the same timm encoder as a task.

    Args:
        task: whose encoder, output stride, channels, memory format and frozen layers it takes over.

    Raises:
        SettingError: there is no such package, or it does not take the encoder; the message says why.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: GSCNNTask) -> None:
        super().__init__()
        if importlib.util.find_spec("segmentation_models_pytorch") is None:
            raise SettingError("segmentation_models_pytorch is not installed")
        smp: Any = importlib.import_module("segmentation_models_pytorch")
        h = task.settings
        if h.output_stride not in (8, 16):
            raise SettingError(f"it has no output stride {h.output_stride}")
        try:
            self.network = smp.DeepLabV3Plus(
                f"tu-{h.backbone}",
                encoder_weights=None,
                encoder_output_stride=h.output_stride,
                decoder_channels=h.channels,
                decoder_atrous_rates=(12, 24, 36) if h.output_stride == 8 else (6, 12, 18),
                classes=h.num_classes,
            )
        except Exception as error:  # of timm or smp, of any kind
            raise SettingError(f"it does not take {h.backbone} ({_first_line(error)})") from error
        self._layout = torch.channels_last if task.channels_last else torch.contiguous_format
        self._loss_stride, self._ignore_index = h.loss_stride, h.ignore_index
        backbone = task.network.backbone
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        self._adopt(backbone.encoder)
        self.to(backbone.mean.device).to(memory_format=self._layout)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of uint8 images (B, 3, H, W)."""
        return self.network(((image / 255 - self.mean) / self.std).contiguous(memory_format=self._layout))

    def loss(self, batch: Batch) -> Tensor:
        """Plain cross-entropy at the same pixels as the joint loss."""
        stride = self._loss_stride
        logits = self(batch["image"])[..., ::stride, ::stride]
        return F.cross_entropy(logits, batch["mask"][:, ::stride, ::stride].long(), ignore_index=self._ignore_index)

    def check(self, image: Tensor) -> None:
        """Raise unless it takes images of this size.

        Raises:
            SettingError: it does not.
        """
        try:
            with torch.no_grad():
                self.eval()(image[:1])
        except Exception as error:
            raise SettingError(f"it does not take this size ({_first_line(error)})") from error
        self._train_as_adopted()

    def _adopt(self, encoder: nn.Module) -> None:
        """Convolutions, frozen weights and frozen normalisation as in another feature extractor of the same model."""
        theirs = dict(self.network.encoder.model.named_modules())
        self._frozen_norms: list[nn.Module] = []
        for name, module in encoder.named_modules():
            other: Any = theirs.get(name)
            if other is None or type(other) is not type(module):
                continue
            if isinstance(module, nn.Conv2d):
                other.dilation, other.padding = module.dilation, module.padding
            for parameter, own in zip(other.parameters(recurse=False), module.parameters(recurse=False), strict=False):
                parameter.requires_grad_(own.requires_grad)
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training:
                self._frozen_norms.append(other)

    def _train_as_adopted(self) -> None:
        self.train()
        for module in self._frozen_norms:
            module.eval()


def chosen_peer(task: GSCNNTask, image: Tensor) -> Peer | str:
    """The peer of a task, or why there is none.

    Args:
        task: in training mode.
        image: (B, 3, H, W) uint8, what it will be given.
    """
    try:
        peer = Peer(task)
        peer.check(image)
    except SettingError as error:
        return f"no row for {PEER}: {error}"
    return peer


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
