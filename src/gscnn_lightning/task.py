"""The training task: steps, metrics, optimizer. Networks, losses and drawing live elsewhere."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Self, get_type_hints

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import instantiate_class
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gscnn_lightning.agreement import check_classes, check_network, check_optimizer, check_weights
from gscnn_lightning.checks import are_numbers, check_not_negative, is_number, is_whole
from gscnn_lightning.classes import ClassTable, colors_of
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.inference import check_settings, predict_logits
from gscnn_lightning.losses import GSCNNLoss, balanced_class_weights, image_weighted_cross_entropy
from gscnn_lightning.losses.checks import Variant
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.models import GSCNN, Backbone
from gscnn_lightning.models.folding import folded
from gscnn_lightning.models.layers import set_memory_format, set_pointwise_dilation, trains_faster_channels_last
from gscnn_lightning.optim import SGD, parameter_groups, poly_decay, warmup
from gscnn_lightning.output import GSCNNOutput, Prediction, predictions
from gscnn_lightning.score_names import IOU, MIOU, check_class_names, class_iou_name, crop_name
from gscnn_lightning.scores import Scores
from gscnn_lightning.trust.checkpoints import check_content, load_weights
from gscnn_lightning.trust.settings import checked_hyperparameters
from gscnn_lightning.trust.training_state import check_training_state

PREDICTION_SETTINGS = ("window", "overlap", "scales", "flip_average")
"""Hyperparameters that are not part of a checkpoint: how images are predicted."""

MACHINE_SETTINGS = ("compile",)
"""Hyperparameters that are not part of a checkpoint: what suits the machine of a training."""

_FROM_BACKBONE = "--model.backbone_weights FILE in place of --ckpt_path"

_FREE_SETTINGS = ("pretrained", "backbone_weights", "freeze_stages", "freeze_norm", "grad_checkpointing")
"""Arguments of `GSCNN` in which a checkpoint may differ: with either value, its weights mean the same network."""

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
        boundary_weight: lambda_1, weight of the boundary loss.
        segmentation_weight: lambda_2, weight of the segmentation loss.
        regularizer_weight: lambda_3, weight of the dual task regularizer.
        attention_weight: lambda_4, weight of the cross-entropy on confident boundary pixels.
        dice_weight: weight of the soft Dice loss, for classes of few pixels: an extension, of the control, too.
        edge_weight: weight of the cross-entropy on true boundary pixels: an extension, of the control, too.
        class_weights: K numbers by which the segmentation loss weights classes, beside its own weights of each image:
            the two are multiplied. "auto" has them from the pixels of the training split, see
            `balanced_class_weights`; they are shown when a training begins, and are in its checkpoints, so that one
            that goes on counts nothing. An extension, None in the paper; the validation loss has none.
        loss_variant: "paper", or "release" for the losses that the published checkpoint was trained with.
        tau: temperature of the Gumbel softmax in the regularizer; by default 1 ("paper") or 0.5 ("release").
        loss_stride: train on every n-th pixel of either axis; 2 leaves a quarter of the pixels. The smoothing of
            the regularizer then reaches n times as far in the image.
        sync_losses: with several processes, count boundary pixels, labelled images and the like over all of them, so
            that they train as one process with the whole batch; else every process balances its own images, which
            needs no message. Statistics of batch normalisation are another thing, see `TimmSyncBatchNorm`.
        optimizer: class path and arguments of the optimizer, SGD as in the paper by default.
        backbone_lr_scale: learning rate of the backbone as a multiple of the others'.
        layer_decay: learning rate of every layer of the backbone as a multiple of that of the layer behind it, such as
            0.75 for pretrained transformers; the last one has it once, times ``backbone_lr_scale``. None for one rate.
        poly_power: exponent of the polynomial decay ``(1 - step / steps) ** power``, per step; 0 keeps the rate.
        warmup_steps: steps of linear warm-up.
        boundary_tolerances: distances of the boundary F-score in pixels, or fractions of the diagonal below 1.
        channels_last: keep weights and images in the memory format that CPUs and tensor cores prefer; by default where
            trainings were measured to be faster, see `trains_faster_channels_last`.
        compile: train through ``torch.compile``, network and losses as one graph; the first step then takes a minute or
            more. Needs a C++ compiler on processors, and Triton on GPUs. Evaluation, whose images differ in size, is
            not compiled.
        window: height and width of sliding windows in validation, test and prediction; None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images in validation, test and prediction, as factors; probabilities are averaged.
        flip_average: average with the mirrored images, too.
        **network: arguments of `GSCNN`, such as ``backbone`` and ``shape_stream``.

    Attributes:
        trust_maps: which of "confidence" and "entropy" `predict_step` puts into its predictions; none by default,
            those among the formats of a `PredictionWriter` where there is one.

    Raises:
        ValueError: a setting is out of range, or does not go with another; the message says which.
        BackboneError: the backbone is unknown or cannot serve.
        WeightsError: pretrained weights cannot be fetched.
    """

    def __init__(
        self,
        num_classes: int = 19,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[tuple[int, int, int]] | None = None,
        ignore_index: int = 255,
        *,
        boundary_weight: float = 20.0,
        segmentation_weight: float = 1.0,
        regularizer_weight: float = 1.0,
        attention_weight: float = 1.0,
        dice_weight: float = 0.0,
        edge_weight: float = 0.0,
        class_weights: Literal["auto"] | Sequence[float] | None = None,
        loss_variant: Variant = "paper",
        tau: float | None = None,
        loss_stride: int = 1,
        sync_losses: bool = False,
        optimizer: dict[str, Any] | None = None,
        backbone_lr_scale: float = 1.0,
        layer_decay: float | None = None,
        poly_power: float = 0.9,
        warmup_steps: int = 0,
        boundary_tolerances: Sequence[float] = (3, 5, 9, 12),
        channels_last: bool | None = None,
        compile: bool = False,
        window: tuple[int, int] | None = None,
        overlap: float = 0.25,
        scales: Sequence[float] = (1.0,),
        flip_average: bool = False,
        **network: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        check_settings(window, overlap, scales)
        if not is_whole(loss_stride, 1):
            raise SettingError(f"loss_stride is {loss_stride!r}: use 1 for every pixel, 2 for every second one")
        if not are_numbers(boundary_tolerances, lambda tolerance: tolerance >= 0):
            raise SettingError(
                f"boundary_tolerances is {boundary_tolerances!r}: give one or more distances in pixels, or "
                "fractions of the diagonal below 1, none of them negative"
            )
        ranges = {"poly_power": poly_power, "warmup_steps": warmup_steps, "backbone_lr_scale": backbone_lr_scale}
        for name, value in ranges.items():
            check_not_negative(name, value)
        if layer_decay is not None and not (is_number(layer_decay, 0) and 0 < layer_decay <= 1):
            raise SettingError(
                f"layer_decay is {layer_decay!r}: give a factor from layer to layer above 0 and at most 1, such as "
                "0.75, or leave it out"
            )
        _check_optimizer(SGD if optimizer is None else optimizer)
        self.save_hyperparameters()
        # Lightning keeps what was given; a checkpoint should not depend on defaults that may change.
        self.save_hyperparameters({**_network_defaults(), **network})
        if isinstance(class_names, str):
            raise SettingError(f"class_names is {class_names!r}: give one name per class")
        self.class_names = list(class_names or map(str, range(num_classes)))
        self.class_colors = list(class_colors or colors_of(self.class_names))
        for name, given in (("name", self.class_names), ("colour", self.class_colors)):
            if len(given) != num_classes:
                raise SettingError(f"{len(given)} class {name}s for {num_classes} classes: give one {name} per class")
        ClassTable(tuple(self.class_names), tuple(self.class_colors))
        check_class_names(self.class_names)
        self.configure_network(**network)
        self.configure_loss()
        self.configure_metrics()
        self.stage_scores: dict[str, Scores] = {}
        self.step_losses: dict[str, Tensor] = {}
        self.is_folded = False
        self.trust_maps: Sequence[str] = ()

    def configure_network(self, **network: Any) -> None:  # noqa: ANN401
        """Build the network.

        Args:
            **network: arguments of `GSCNN`.
        """
        self.network = GSCNN(self.settings.num_classes, **network)
        self._set_layout(self.settings.channels_last is not False)

    def configure_loss(self) -> None:
        """Build the joint loss from the hyperparameters."""
        h = self.settings
        self.loss = GSCNNLoss(
            h.num_classes,
            boundary=h.boundary_weight,
            segmentation=h.segmentation_weight,
            regularizer=h.regularizer_weight,
            attention=h.attention_weight,
            dice=h.dice_weight,
            edge=h.edge_weight,
            variant=h.loss_variant,
            ignore_index=h.ignore_index,
            tau=h.tau,
            sync=h.sync_losses,
            # Until they are known all classes weigh the same, and a checkpoint has a place for them.
            class_weights=[1.0] * h.num_classes if h.class_weights == "auto" else h.class_weights,
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

    def setup(self, stage: str) -> None:
        """Choose the memory format of a training, and find out whether the machine can compile it.

        Raises:
            SettingError: it cannot; the message says what is missing. Or networks cannot have the trainer's precision.
        """
        if self.trainer.precision in ("16-true", "bf16-true"):
            mixed = self.trainer.precision.replace("true", "mixed")
            raise SettingError(
                f"trainer.precision is {self.trainer.precision}: weights stay in 32 bits here, as losses and "
                f"statistics of normalisation need them; use {mixed} or 32-true"
            )
        if stage != "fit":
            return
        device = self.trainer.strategy.root_device  # the task itself is moved there after this
        if self.settings.channels_last is None and not trains_faster_channels_last(self.network, device):
            self._set_layout(False)
            rank_zero_info(
                "Weights and maps are kept contiguous: wide convolutions train faster so on a processor without AVX-512"
            )
        if self.settings.compile:
            check_compiler(device)

    def on_fit_start(self) -> None:
        """Weigh the classes, unless a checkpoint has brought their weights, and show them.

        Raises:
            SettingError: they are to be found out, and the data cannot tell the shares of their classes.
            DataError: a label map of the training split cannot be read.
        """
        weights = self.loss.class_weights
        if weights is None:
            return
        shares: list[float] | None = None
        if self.settings.class_weights == "auto" and bool((weights == 1).all()):
            data: Any = getattr(self.trainer, "datamodule", None)
            if not hasattr(data, "class_shares"):
                kind = "loaders without a data module" if data is None else type(data).__name__
                raise SettingError(
                    f"class_weights is auto, and {kind} cannot tell how many pixels each class has: give a number for "
                    "each class (--model.class_weights [1,2.5,...])"
                )
            shares = data.class_shares()
            weights.copy_(torch.tensor(balanced_class_weights(shares)))
        told = [f"{name} {weight:.3g}" for name, weight in zip(self.class_names, weights.tolist(), strict=True)]
        if shares is not None:
            told = [f"{text} ({_percent(share)})" for text, share in zip(told, shares, strict=True)]
        of = " (share of the labelled training pixels)" if shares is not None else ""
        rank_zero_info(f"Class weights{of}: {', '.join(told)}")

    def forward(self, image: Tensor, stride: int = 1) -> GSCNNOutput:
        """Logits at every n-th pixel of images (B, 3, H, W), uint8 or float in [0, 1]."""
        if not torch.compiler.is_compiling():
            self._choose_kernels(image.device)
        return self.network(self._layout(image), stride=stride)

    def fold(self) -> None:
        """Fold batch normalisation into convolutions: the same numbers in less time, for prediction only.

        See :func:`gscnn_lightning.models.folding.folded`. Such a task can be neither trained nor saved.

        Raises:
            ValueError: the task is in training mode.
        """
        self.network = folded(self.network)  # type: ignore[assignment]
        self.is_folded = True

    def predict_output(self, image: Tensor, gates: bool = True) -> GSCNNOutput:
        """Logits with the windows, scales and flips of the hyperparameters, of images of any size; gates if wanted."""
        h = self.settings
        return predict_logits(self, image, h.window, h.overlap, h.scales, h.flip_average, gates=gates)

    def training_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The joint loss of one batch.

        Args:
            batch: "image" (B, 3, H, W) uint8, "mask" (B, H, W) integer and "boundary" (B, 1, H, W) in {0, 1}.

        Returns:
            "loss", and the weighted terms that are in it, scalars.
        """
        stride = self.settings.loss_stride
        labels, boundaries = batch["mask"][:, ::stride, ::stride], batch["boundary"][..., ::stride, ::stride]
        if not self.settings.compile:
            return self.loss(self(batch["image"], stride), labels, boundaries)
        image = self._layout(batch["image"])
        return _compiled_losses()(self.network, self.loss, image, labels, boundaries, stride)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Joint loss of one batch; logs every term."""
        terms = self.training_losses(batch)
        self.step_losses = {name: term.detach() for name, term in terms.items()}
        total = terms.pop("loss")
        self._log_terms(total, terms, len(batch["mask"]))
        return total

    # Logs, scores and pictures are no tensor's work, which ``torch.compile`` of a whole task would try to trace.

    @torch.compiler.disable
    def _log_terms(self, total: Tensor, terms: Mapping[str, Tensor], batch_size: int) -> None:
        # Not in the progress bar, which would wait for the device after every batch.
        self.log("train/loss", total, batch_size=batch_size)
        # Filled on the device: a number would be copied there, which waits for all that is asked of it.
        rate = torch.full((), self.trainer.optimizers[0].param_groups[-1]["lr"], device=total.device)
        self.log("train/lr", rate, batch_size=batch_size)
        self.log_dict({f"train/loss_{name}": term for name, term in terms.items()}, batch_size=batch_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics at the full size of the images."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics at the full size of the images."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """What the network says of each image of a batch."""
        return self._predictions(self.predict_output(batch["image"]), batch)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test split."""
        self._log_scores("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the hyperparameters with polynomial decay per step."""
        h = self.settings
        optimizer = made_optimizer(self.network, h.optimizer or SGD, h.backbone_lr_scale, h.layer_decay)
        if self.settings.poly_power == 0 and self.settings.warmup_steps == 0:
            return optimizer
        # A function, not a method: the scheduler would put a method's owner into the checkpoint.
        scheduler = LambdaLR(optimizer, lambda step: self._learning_rate_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def set_learning_rate(self, rate: float) -> None:
        """Train with another learning rate, as if it had been given; before the training has begun.

        Args:
            rate: that of everything but the backbone.
        """
        config = self.settings.optimizer or SGD
        changed = {**config, "init_args": {**config.get("init_args", {}), "lr": rate}}
        _check_optimizer(changed)
        self.save_hyperparameters({"optimizer": changed})  # for loggers and checkpoints, too

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained: loading it must not look for pretrained weights again.

        Nor does it fix how images are predicted, which is chosen anew by whoever uses it.

        Raises:
            SettingError: the task is folded, and a checkpoint of it could not be loaded.
        """
        if self.is_folded:
            raise SettingError("a folded network is for prediction and cannot be saved: load it with fold=False")
        # Lightning's command line adds the name of a function that is to make the task.
        left_out = {*PREDICTION_SETTINGS, *MACHINE_SETTINGS, "_instantiator"}
        kept = {k: v for k, v in checkpoint["hyper_parameters"].items() if k not in left_out}
        checkpoint["hyper_parameters"] = {**kept, "pretrained": False, "backbone_weights": None}

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,  # noqa: ANN401
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        trusted_optimizers: Collection[str] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """The task of a checkpoint, which is data: nothing that it names is imported or called, as Lightning may.

        Args:
            checkpoint_path: best.ckpt or last.ckpt of a run.
            map_location: where the weights are to be, as for ``torch.load``.
            hparams_file: has no use here, as hyperparameters are in the checkpoint.
            strict: whether the weights have to be those of the network, no more and no fewer; they do by default.
            weights_only: always true.
            trusted_optimizers: class paths of your own optimizers, which a checkpoint may name beside those of
                torch.optim and timm.optim, and those in the environment variable GSCNN_TRUSTED_OPTIMIZERS. They are
                imported when `configure_optimizers` is called.
            **kwargs: arguments of the task that replace those of the checkpoint.

        Raises:
            WeightsError: the file is missing, damaged or no checkpoint of this library, its parts do not go together,
                or it names something to import.
            SettingError: an argument is out of range.
        """
        for name, value in {"hparams_file": hparams_file, "weights_only": weights_only}.items():
            if value not in (None, True):
                raise SettingError(
                    f"{name} is {value}: checkpoints are data and have their settings in them; leave it out, and give "
                    "other settings as arguments"
                )
        name = f"checkpoint {checkpoint_path}"
        content = load_weights(checkpoint_path, map_location)
        saved = cls.checked_hyperparameters(content, name, trusted_optimizers)
        try:
            task = cls(**{**saved, **kwargs})
            if strict is not None:
                task.strict_loading = strict
            task.on_load_checkpoint(content)
            task.load_state_dict(content["state_dict"], strict=task.strict_loading)
        except Exception as error:
            if isinstance(error, SettingError) and str(error).startswith(tuple(kwargs)):
                raise  # what was asked for, not what is in the file
            reason = " ".join(str(error).split())[:300].removeprefix("the checkpoint ")
            kind = "" if isinstance(error, GSCNNError) else f"{type(error).__name__}: "
            raise WeightsError(f"{name} cannot be used: {kind}{reason}") from error
        return task.to(next((tensor.device for tensor in content["state_dict"].values()), task.device))

    @classmethod
    def checked_hyperparameters(
        cls, checkpoint: Mapping[str, Any], name: str, trusted_optimizers: Collection[str] = ()
    ) -> dict[str, Any]:
        """Hyperparameters of a checkpoint, which are arguments of the task and its network, of their types.

        Args:
            checkpoint: content of the file.
            name: what messages call it.
            trusted_optimizers: as for `load_from_checkpoint`.

        Raises:
            WeightsError: one is not, or names a class that is not trusted.
        """
        known: dict[str, inspect.Parameter] = {}
        own = (vars(kind).get("__init__") for kind in cls.__mro__ if issubclass(kind, GSCNNTask))
        for made in (*filter(None, own), vars(GSCNN)["__init__"]):
            hints = get_type_hints(made)
            for parameter in list(inspect.signature(made).parameters.values())[1:]:
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                    known.setdefault(parameter.name, parameter.replace(annotation=hints.get(parameter.name, Any)))
        return checked_hyperparameters(checkpoint, name, known, trusted_optimizers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint goes with this task, and with the training if one is to go on.

        Raises:
            GSCNNError: it does not; the message names both sides.
        """
        trainer = getattr(self, "_trainer", None)
        path = None if trainer is None else trainer.ckpt_path
        is_fit = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        name = "the checkpoint" if path is None else f"checkpoint {path}"
        check_content(checkpoint, name)
        self.check_checkpoint(checkpoint, name, is_fit)

    def check_checkpoint(self, checkpoint: Mapping[str, Any], name: str = "the checkpoint", fit: bool = False) -> None:
        """Raise unless a checkpoint is one of this task: the same classes, network and tensors, and the same optimizer.

        Args:
            checkpoint: content of the file; its tensors may be on the meta device.
            name: what messages call it.
            fit: whether a training is to go on from it.

        Raises:
            SettingError: classes, settings of the network or the optimizer differ.
            WeightsError: tensors are missing, unknown or of another shape, what a training needs is not there, or
                something is of another kind than trainings write it.
        """
        optimizer = self.settings.optimizer or SGD
        # What this task was made with needs no other word of the user's.
        saved = self.checked_hyperparameters(checkpoint, name, [optimizer["class_path"]])
        known = list(map(str, range(saved.get("num_classes", self.settings.num_classes))))
        anew = f"; to train others from its backbone: {_FROM_BACKBONE}" if fit else ""
        check_classes(list(saved.get("class_names") or known), self.class_names, name, "the data", anew)
        check_network(saved, self.settings, name, [n for n in _network_defaults() if n not in _FREE_SETTINGS])
        if fit:
            check_optimizer(checkpoint, optimizer, name)
        if "state_dict" in checkpoint and self.strict_loading:
            check_weights(checkpoint["state_dict"], self.state_dict(), name)
        if fit and type(self).configure_optimizers is GSCNNTask.configure_optimizers:
            groups = network_groups(self.network, 1.0, layer_decay=self.settings.layer_decay)
            shapes = [parameter.shape for group in groups for parameter in group["params"]]
            check_training_state(checkpoint, name, shapes, len(groups), optimizer.get("init_args", {}))

    def _layout(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    _pointwise_dilation = 1

    def _choose_kernels(self, device: torch.device) -> None:
        distance = 2 if device.type == "cpu" and self.channels_last else 1
        if distance != self._pointwise_dilation:
            set_pointwise_dilation(self.network, distance)
            self._pointwise_dilation = distance

    def _set_layout(self, channels_last: bool) -> None:
        self.channels_last = channels_last
        set_memory_format(self.network, torch.channels_last if channels_last else torch.contiguous_format)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        labels = batch["mask"]
        output = self.predict_output(batch["image"], gates=False)
        loss = image_weighted_cross_entropy(output.seg_logits, labels, self.settings.ignore_index)
        self._score(output, loss, batch, stage)

    @torch.compiler.disable
    def _score(self, output: GSCNNOutput, loss: Tensor, batch: Batch, stage: str) -> None:
        self._metrics_of(stage).update(output.labels, output.boundary_prob, batch, output.seg_logits)
        self.log(f"{stage}/loss_segmentation", loss, batch_size=len(batch["mask"]), sync_dist=True)

    @torch.compiler.disable
    def _predictions(self, output: GSCNNOutput, batch: Batch) -> list[Prediction]:
        return predictions(output, batch, trust=self.trust_maps)

    def _log_scores(self, stage: str) -> None:
        metrics = self._metrics_of(stage)
        scores = metrics.compute()
        self.stage_scores[stage] = scores
        for name, value in _logged(scores).items():
            # Every process holds the same value after compute(), so there is nothing to average.
            self.log(f"{stage}/{name}", value, prog_bar=name == MIOU, rank_zero_only=False)
        metrics.reset()

    @property
    def settings(self) -> Any:  # noqa: ANN401
        """The hyperparameters, by attribute."""
        return self.hparams

    @property
    def boundary_names(self) -> list[str]:
        """Names of the boundary scores, such as "boundary_f1_3px"; fractions of the diagonal end in "diag"."""
        return self._metrics_of("val").boundary_names

    def logged_names(self) -> list[str]:
        """Names of all that training and validation log, known before either: what a callback can monitor."""
        h = self.settings
        of_both = ("segmentation", "dice", "edge")
        has_boundaries = h.shape_stream or h.boundary_supervision
        terms = [name for name, weight in self.loss.weights.items() if weight and (has_boundaries or name in of_both)]
        one = Evaluation(self.class_names, h.ignore_index, h.boundary_tolerances)
        labels = torch.zeros(1, 2, 2, dtype=torch.long)
        one.update(labels, None, {"mask": labels})
        return [
            "train/loss",
            "train/lr",
            *(f"train/loss_{name}" for name in dict.fromkeys(["segmentation", *terms])),
            "val/loss_segmentation",
            *(f"val/{name}" for name in _logged(one.compute())),
        ]

    def _metrics_of(self, stage: str) -> Evaluation:
        metrics = self.metrics[f"{stage}_metrics"]
        assert isinstance(metrics, Evaluation)
        return metrics

    def _learning_rate_factor(self, step: int) -> float:
        rising = warmup(step, self.settings.warmup_steps)
        if rising is not None or step == 0:
            return rising or 1.0  # asked for at construction, before the number of steps is known
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise SettingError("polynomial decay needs an end: set max_epochs or max_steps, or --model.poly_power 0")
        return poly_decay(step, self.settings.warmup_steps, total, self.settings.poly_power)


def _percent(share: float) -> str:
    """A share in percent; classes that never occur are called so."""
    return f"{100 * share:.2g} %" if share else "never there"


def _logged(scores: Scores) -> dict[str, float]:
    """What is logged of the scores of a split, by its name without the stage."""
    crops = {crop_name(factor): score for factor, score in scores.crops.items()}
    names = zip(scores.class_names, scores.classes[IOU], strict=True)
    return {**scores.means, **crops, **{class_iou_name(name): iou for name, iou in names}}


def _joint_losses(
    network: nn.Module, loss: nn.Module, image: Tensor, labels: Tensor, boundaries: Tensor, stride: int
) -> dict[str, Tensor]:
    """The joint loss as "loss", and the weighted terms that are in it."""
    return loss(network(image, stride=stride), labels, boundaries)


@functools.cache
def _compiled_losses() -> Callable[..., dict[str, Tensor]]:
    """`_joint_losses` as one graph for batches of one size, as trainings have them; else sizes become variables."""
    # A process may train many networks, one after the other, and each has a graph of its own.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(_joint_losses, fullgraph=True)


def check_compiler(device: torch.device) -> None:
    """Raise unless ``torch.compile`` works on a device.

    Raises:
        SettingError: it does not.
    """
    try:
        torch.compile(torch.neg, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:
        needed = "Triton" if device.type == "cuda" else "a C++ compiler such as g++"
        reason = " ".join(str(error).split())[:200]
        raise SettingError(
            f"compile is true, but torch.compile does not work here ({type(error).__name__}: {reason}): install "
            f"{needed}, or leave --model.compile out"
        ) from error


def network_groups(
    network: nn.Module, lr: float, backbone_lr_scale: float = 1.0, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups of a network, by what its backbone says of its layers; see `parameter_groups`.

    Args:
        network: its trained parameters are in the groups; another than `GSCNN` has a backbone in name only.
        lr: learning rate of everything but the backbone.
        backbone_lr_scale: the backbone's as a multiple of it.
        layer_decay: factor from layer to layer of the backbone, see `Backbone.layer_scales`; None for none.

    Raises:
        BackboneError: the backbone's layers are not known.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, Backbone):
        return parameter_groups(network.named_parameters(), lr, backbone_lr_scale)
    scales = {} if layer_decay is None else backbone.layer_scales(layer_decay)
    return parameter_groups(
        network.named_parameters(),
        lr,
        backbone_lr_scale,
        {f"backbone.{name}": scale for name, scale in scales.items()},
        {f"backbone.{name}" for name in backbone.fresh_parameters()},
        {f"backbone.{name}" for name in backbone.without_decay()},
    )


def made_optimizer(
    network: nn.Module, config: Mapping[str, Any], backbone_lr_scale: float = 1.0, layer_decay: float | None = None
) -> Optimizer:
    """An optimizer of what is trained in a network.

    Args:
        network: see `network_groups`.
        config: class path and arguments, as in the command line's files.
        backbone_lr_scale: learning rate of the backbone as a multiple of the others'.
        layer_decay: factor from layer to layer of the backbone, None for none.
    """
    arguments = dict(config.get("init_args", {}))
    groups = network_groups(network, arguments["lr"], backbone_lr_scale, layer_decay)
    return instantiate_class((groups,), {"class_path": config["class_path"], "init_args": arguments})


def _check_optimizer(config: Mapping[str, Any]) -> None:
    arguments = config.get("init_args") if isinstance(config, Mapping) else None
    if not isinstance(arguments, Mapping) or "class_path" not in config or "lr" not in arguments:
        raise SettingError(f"optimizer is {config!r}: give a class_path and init_args with an lr, as in {SGD}")
    check_not_negative("lr", arguments["lr"])


def _network_defaults() -> dict[str, Any]:
    """Arguments of `GSCNN` that have a default, with it."""
    parameters = inspect.signature(GSCNN).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
