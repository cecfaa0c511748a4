"""The training task: steps, metrics, optimizer. Networks, losses and drawing live elsewhere."""

from collections.abc import Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import instantiate_class
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gscnn_lightning.data.classes import colors_of
from gscnn_lightning.errors import SettingError
from gscnn_lightning.evaluation import Evaluation, Scores
from gscnn_lightning.inference import check_settings, predict_logits
from gscnn_lightning.losses import GSCNNLoss, image_weighted_cross_entropy
from gscnn_lightning.losses.image_weighted_ce import Variant
from gscnn_lightning.models import GSCNN, GSCNNOutput
from gscnn_lightning.models.image_gradient import GradientKind
from gscnn_lightning.models.layers import Norm

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}}
"""The paper's optimizer; the learning rate is for a total batch of 16."""

PREDICTION_SETTINGS = ("window", "overlap", "scales", "flip_average")
"""Hyperparameters that are not part of a checkpoint."""

Batch = dict[str, Any]


class GSCNNTask(pl.LightningModule):
    """Gated-SCNN, or its matched control, trained with the joint loss.

    All arguments are plain numbers, strings and lists, so that a checkpoint loads safely and needs nothing else.
    Batches hold "image" (B, 3, H, W) uint8, "mask" (B, H, W) integer and "boundary" (B, 1, H, W) in {0, 1}.

    Args:
        num_classes: number of classes K; the command line takes it from the data.
        class_names: K names for the logs; numbers by default.
        class_colors: K RGB colours, 0 to 255, for pictures; by default those of Cityscapes or CamVid where the names
            are theirs, else well separated hues.
        ignore_index: label of void pixels.
        backbone: timm model name of the regular stream.
        pretrained: start from ImageNet weights, of an installed package or from timm.
        output_stride: stride of the last map, 8, 16 or 32.
        shape_stream: False trains the matched control, DeepLabv3+ on the same backbone.
        image_gradient: "canny", "sobel", "none" or "release".
        backbone_weights: local file with weights of the backbone, used instead.
        dilation: False reaches the output stride without dilated convolutions, which are slow on CPUs if depthwise.
        shape_channels: width of the shape stream's first block.
        channels: width of the ASPP branches and of the decoder.
        skip_channels: width of the decoder's skip connection.
        freeze_stages: number of backbone maps, from the earliest, whose layers are not trained.
        norm: normalisation of everything but the backbone, "batch" or "group".
        boundary_weight: lambda_1, weight of the boundary loss.
        segmentation_weight: lambda_2, weight of the segmentation loss.
        regularizer_weight: lambda_3, weight of the dual task regularizer.
        attention_weight: lambda_4, weight of the cross-entropy on confident boundary pixels.
        loss_variant: "paper", or "release" for the losses that the published checkpoint was trained with.
        tau: temperature of the Gumbel softmax in the regularizer; by default 1 ("paper") or 0.5 ("release").
        loss_stride: train on every n-th pixel of either axis; 2 leaves a quarter of the pixels. The smoothing of
            the regularizer then reaches n times as far in the image.
        optimizer: class path and arguments of the optimizer, SGD as in the paper by default.
        backbone_lr_scale: learning rate of the backbone as a multiple of the others'.
        poly_power: exponent of the polynomial decay ``(1 - step / steps) ** power``, per step; 0 keeps the rate.
        warmup_steps: steps of linear warm-up.
        boundary_tolerances: distances of the boundary F-score in pixels, or fractions of the diagonal below 1.
        channels_last: keep weights and images in the memory format that CPUs and tensor cores prefer.
        grad_checkpointing: compute activations again in the backward pass instead of keeping them: about a third more
            time, much less memory.
        freeze_norm: batch normalisation of the backbone keeps its pretrained statistics, for small batches.
        window: height and width of sliding windows in validation, test and prediction; None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images in validation, test and prediction, as factors; probabilities are averaged.
        flip_average: average with the mirrored images, too.
    """

    def __init__(
        self,
        num_classes: int = 19,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[tuple[int, int, int]] | None = None,
        ignore_index: int = 255,
        backbone: str = "resnet50",
        pretrained: bool = True,
        output_stride: Literal[8, 16, 32] = 8,
        shape_stream: bool = True,
        image_gradient: GradientKind = "canny",
        backbone_weights: str | None = None,
        dilation: bool = True,
        shape_channels: int = 64,
        channels: int = 256,
        skip_channels: int = 48,
        freeze_stages: int = 0,
        norm: Norm = "batch",
        boundary_weight: float = 20.0,
        segmentation_weight: float = 1.0,
        regularizer_weight: float = 1.0,
        attention_weight: float = 1.0,
        loss_variant: Variant = "paper",
        tau: float | None = None,
        loss_stride: int = 1,
        optimizer: dict[str, Any] | None = None,
        backbone_lr_scale: float = 1.0,
        poly_power: float = 0.9,
        warmup_steps: int = 0,
        boundary_tolerances: Sequence[float] = (3, 5, 9, 12),
        channels_last: bool = True,
        grad_checkpointing: bool = False,
        freeze_norm: bool = False,
        window: tuple[int, int] | None = None,
        overlap: float = 0.25,
        scales: Sequence[float] = (1.0,),
        flip_average: bool = False,
    ) -> None:
        super().__init__()
        check_settings(window, overlap, scales)
        if loss_stride < 1:
            raise SettingError(f"loss_stride is {loss_stride}: use 1 for every pixel, 2 for every second one")
        self.save_hyperparameters()
        self.class_names = list(class_names or map(str, range(num_classes)))
        self.class_colors = list(class_colors or colors_of(self.class_names))
        for name, given in (("name", self.class_names), ("colour", self.class_colors)):
            if len(given) != num_classes:
                raise SettingError(f"{len(given)} class {name}s for {num_classes} classes: give one {name} per class")
        self.configure_network()
        self.configure_loss()
        self.configure_metrics()
        self.stage_scores: dict[str, Scores] = {}

    def configure_network(self) -> None:
        """Build the network from the hyperparameters."""
        h = self.settings
        self.network = GSCNN(
            num_classes=h.num_classes,
            backbone=h.backbone,
            pretrained=h.pretrained,
            backbone_weights=h.backbone_weights,
            output_stride=h.output_stride,
            dilation=h.dilation,
            shape_stream=h.shape_stream,
            image_gradient=h.image_gradient,
            shape_channels=h.shape_channels,
            channels=h.channels,
            skip_channels=h.skip_channels,
            freeze_stages=h.freeze_stages,
            norm=h.norm,
            grad_checkpointing=h.grad_checkpointing,
            freeze_norm=h.freeze_norm,
        )
        if h.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)

    def configure_loss(self) -> None:
        """Build the joint loss from the hyperparameters."""
        h = self.settings
        self.loss = GSCNNLoss(
            h.num_classes,
            boundary=h.boundary_weight,
            segmentation=h.segmentation_weight,
            regularizer=h.regularizer_weight,
            attention=h.attention_weight,
            variant=h.loss_variant,
            ignore_index=h.ignore_index,
            tau=h.tau,
        )

    def configure_metrics(self) -> None:
        """Build the metrics of validation and, with more of them, of test."""
        h = self.settings
        # A Lightning submodule may not be called "val" if the trainer is to find its own attributes.
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_metrics": Evaluation(self.class_names, h.ignore_index, h.boundary_tolerances, everything)
                for stage, everything in (("val", False), ("test", True))
            }
        )

    def forward(self, image: Tensor, stride: int = 1) -> GSCNNOutput:
        """Logits at every n-th pixel of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.network(self._layout(image), stride=stride)

    def predict_output(self, image: Tensor) -> GSCNNOutput:
        """Logits with the windows, scales and flips of the hyperparameters, of images of any size."""
        h = self.settings
        return predict_logits(self, image, h.window, h.overlap, h.scales, h.flip_average)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Joint loss of one batch; logs every term."""
        stride = self.settings.loss_stride
        labels, boundaries = batch["mask"][:, ::stride, ::stride], batch["boundary"][..., ::stride, ::stride]
        terms = self.loss(self(batch["image"], stride), labels, boundaries)
        total = terms.pop("loss")
        batch_size = len(labels)
        # Not in the progress bar, which would wait for the device after every batch.
        self.log("train/loss", total, batch_size=batch_size)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[-1]["lr"], batch_size=batch_size)
        self.log_dict({f"train/loss_{name}": term for name, term in terms.items()}, batch_size=batch_size)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics at the full size of the images."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics at the full size of the images."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Label maps of a batch.

        Returns:
            "name" (as in the batch), "image" (B, 3, H, W) uint8, "labels" (B, H, W) uint8, "boundary_prob"
            (B, 1, H, W) float32 in [0, 1], None without a shape stream, and "gates" (B, 1, h, w) in [0, 1] each.
        """
        output = self.predict_output(batch["image"])
        boundary = output.boundary_logits
        return {
            "name": batch["name"],
            "image": batch["image"],
            "labels": output.seg_logits.argmax(dim=1).to(torch.uint8),
            "boundary_prob": None if boundary is None else boundary.float().sigmoid(),
            "gates": output.gates,
        }

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test split."""
        self._log_scores("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the hyperparameters with polynomial decay per step."""
        config = self.settings.optimizer or SGD
        optimizer = self._make_optimizer(config)
        if self.settings.poly_power == 0 and self.settings.warmup_steps == 0:
            return optimizer
        # A function, not a method: the scheduler would put a method's owner into the checkpoint.
        scheduler = LambdaLR(optimizer, lambda step: self._learning_rate_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained: loading it must not look for pretrained weights again.

        Nor does it fix how images are predicted, which is chosen anew by whoever uses it.
        """
        kept = {k: v for k, v in checkpoint["hyper_parameters"].items() if k not in PREDICTION_SETTINGS}
        checkpoint["hyper_parameters"] = {**kept, "pretrained": False, "backbone_weights": None}

    def _layout(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=torch.channels_last) if self.settings.channels_last else image

    def _evaluate(self, batch: Batch, stage: str) -> None:
        labels = batch["mask"]
        output = self.predict_output(batch["image"])
        boundary = output.boundary_logits
        prob = None if boundary is None else boundary.float().sigmoid()
        self._metrics_of(stage).update(output.seg_logits.argmax(dim=1), prob, batch)
        loss = image_weighted_cross_entropy(output.seg_logits, labels, self.settings.ignore_index)
        self.log(f"{stage}/loss_segmentation", loss, batch_size=len(labels), sync_dist=True)

    def _log_scores(self, stage: str) -> None:
        metrics = self._metrics_of(stage)
        scores = metrics.compute()
        self.stage_scores[stage] = scores
        logged = dict(scores.means)
        logged.update({f"miou_crop_{factor}": score for factor, score in scores.crops.items()})
        iou = scores.classes["iou"]
        logged.update({f"iou_{n.replace(' ', '_')}": v for n, v in zip(self.class_names, iou, strict=True)})
        for name, value in logged.items():
            # Every process holds the same value after compute(), so there is nothing to average.
            self.log(f"{stage}/{name}", value.float().to(self.device), prog_bar=name == "miou", rank_zero_only=False)
        metrics.reset()

    @property
    def settings(self) -> Any:  # noqa: ANN401
        """The hyperparameters, by attribute."""
        return self.hparams

    @property
    def boundary_names(self) -> list[str]:
        """Names of the boundary scores, such as "boundary_f1_3px"; fractions of the diagonal end in "diag"."""
        return self._metrics_of("val").boundary_names

    @property
    def class_scores(self) -> dict[str, dict[str, Tensor]]:
        """Latest scores per class by stage: {"val": {"iou": (K,), "boundary_f1_3px": (K,), ...}, "test": ...}."""
        return {stage: scores.classes for stage, scores in self.stage_scores.items()}

    def _metrics_of(self, stage: str) -> Evaluation:
        metrics = self.metrics[f"{stage}_metrics"]
        assert isinstance(metrics, Evaluation)
        return metrics

    def _make_optimizer(self, config: dict[str, Any]) -> Optimizer:
        """Optimizer with the backbone's learning rate scaled; biases and normalisation scales do not decay."""
        arguments = dict(config.get("init_args", {}))
        lr = arguments["lr"]
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
        parameters = [
            {
                "params": members,
                "lr": lr * (self.settings.backbone_lr_scale if in_backbone else 1),
                **({} if decays else {"weight_decay": 0.0}),
            }
            for (in_backbone, decays), members in groups.items()
        ]
        return instantiate_class((parameters,), {"class_path": config["class_path"], "init_args": arguments})

    def _learning_rate_factor(self, step: int) -> float:
        warmup = self.settings.warmup_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if step == 0:
            return 1.0  # asked for at construction, before the number of steps is known
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise SettingError("polynomial decay needs an end: set max_epochs or max_steps, or --model.poly_power 0")
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return (1 - progress) ** self.settings.poly_power
