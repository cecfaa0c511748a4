"""A training that has gone astray ends with a message, and its checkpoints stay good."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gscnn_lightning.errors import TrainingError

_REMEDY = (
    "lower --optimizer.lr, set --trainer.gradient_clip_val, or look at these frames with `gscnn data check`; with "
    "precision 16-mixed try bf16-mixed or 32-true"
)


@dataclass(frozen=True)
class _Step:
    """Losses of a step that are on their way from the device.

    Attributes:
        number: of the step, counted from 1.
        frames: names of the frames of its batch.
        names: of the losses.
        losses: one number each, on the CPU, valid once `copied` has happened.
        copied: None where there is nothing to wait for.
    """

    number: int
    frames: tuple[str, ...]
    names: tuple[str, ...]
    losses: Tensor
    copied: torch.cuda.Event | None


class FiniteLoss(pl.Callback):
    """Stops a training whose loss is no longer a finite number, and keeps weights that are not out of checkpoints.

    Nothing waits for a GPU: its losses are looked at once they have arrived, a step or a few later.

    Raises:
        TrainingError: names the term, the step, the frames of its batch, and what to try.
    """

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Look at the losses that have arrived."""
        losses: Mapping[str, Tensor] = getattr(pl_module, "step_losses", {})
        if losses:
            frames = tuple(map(str, batch.get("name", ()))) if isinstance(batch, Mapping) else ()
            self._steps.append(_sent(trainer.global_step, frames, losses))
        while self._steps and (self._steps[0].copied is None or self._steps[0].copied.query()):
            _check(self._steps.popleft())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at all that is left."""
        self._check_all()

    def _check_all(self) -> None:
        while self._steps:
            step = self._steps.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            _check(step)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save weights that are not finite."""
        self._check_all()
        # A sum is finite only if all of its parts are, and adding them up is cheaper than asking each of them.
        # Where an average of the weights is saved, Lightning keeps those of the training under another name.
        states = [checkpoint[name] for name in ("state_dict", "current_model_state") if name in checkpoint]
        sums = [t.detach().float().sum() for state in states for t in state.values() if t.is_floating_point()]
        if sums and not bool(torch.isfinite(torch.stack([each.to(sums[0].device) for each in sums])).all()):
            raise TrainingError(
                f"weights of the network are not finite after step {trainer.global_step} and are not saved: {_REMEDY}"
            )


def _sent(number: int, frames: tuple[str, ...], losses: Mapping[str, Tensor]) -> _Step:
    values = torch.stack([value.detach().float() for value in losses.values()])
    if values.device.type != "cuda":
        return _Step(number, frames, tuple(losses), values.cpu(), None)
    there = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return _Step(number, frames, tuple(losses), there, copied)


def _check(step: _Step) -> None:
    if bool(torch.isfinite(step.losses).all()):
        return
    values = zip(step.names, step.losses.tolist(), strict=True)
    bad = [f"{name} {value:g}" for name, value in values if not math.isfinite(value)]
    shown = ", ".join(step.frames[:8]) + (", ..." if len(step.frames) > 8 else "")
    where = f", frames {shown}" if shown else ""
    raise TrainingError(f"the loss of step {step.number} is not finite ({', '.join(bad)}{where}): {_REMEDY}")
