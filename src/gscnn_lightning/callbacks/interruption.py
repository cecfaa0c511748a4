"""Signals that end a training: finish the step, save, say how to go on."""

import math
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from gscnn_lightning.callbacks._trainer import between_steps, run_folder
from gscnn_lightning.run_folder import LAST, RunFolder

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


class Stopped(SystemExit):
    """The training has ended by a signal; the exit code is 128 plus its number, as shells have it."""


class Interruption(Checkpoint):
    """Ends a fit by SIGTERM, SIGUSR1 or Ctrl-C at the next point that it can go on from exactly, and saves there.

    That is after the optimizer's step, or after a batch of a validation, which is then begun once more. Several
    processes agree on it, whichever of them was told, over a connection of their own that no device is waited for. A
    second Ctrl-C ends at once.
    Under SLURM with requeueing, Lightning's own checkpoint and requeueing follow in place of the message.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._run: RunFolder | None = None
        self._validating = False
        self._shared_batches: float = 0
        self._group: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder while all processes are certainly there."""
        self._run = run_folder(trainer)
        if stage == "fit" and trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, now that Lightning has set up handlers of its own."""
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen where there is no sanity check."""
        self._listen(trainer)
        self._stop_if_asked(trainer, save=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs, of which the one that has ended is in last.ckpt."""
        self._stop_if_asked(trainer, save=False)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Stop after a step."""
        if between_steps(trainer):
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out how many batches all processes have, as one may have one more than another."""
        own = sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)
        if trainer.state.fn == TrainerFn.FITTING:
            self._shared_batches = own if self._group is None or math.isinf(own) else -self._highest(-int(own))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within a validation."""
        self._shared_batches -= 1
        if trainer.state.fn == TrainerFn.FITTING and self._shared_batches >= 0 and self._is_asked():
            self._validating = not trainer.sanity_checking
            if self._validating:
                _train_again(trainer, pl_module)
            self._stop(trainer, save=self._validating)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a validation that is interrupted begin once more: what its metrics had seen is not in the checkpoint."""
        if self._validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            started = max(progress["total"]["started"], 1)
            # What Lightning takes for a validation that had started a batch and not finished it.
            progress["total"] = {
                "ready": started,
                "started": started,
                "processed": started - 1,
                "completed": started - 1,
            }
            progress["current"] = dict.fromkeys(progress["current"], 0)
            progress["is_last_batch"] = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save where a signal has come before this was listening to it; give the signals back."""
        if isinstance(exception, SIGTERMException):
            if trainer.world_size == 1:
                self._save(trainer)
            exception.code = 128 + signal.SIGTERM
        self._hear_no_more()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, (own, handler) in self._former.items():
                if signal.getsignal(number) is own:  # else Lightning has given it back already
                    signal.signal(number, handler)
        self._former = {}

    def _listen(self, trainer: pl.Trainer) -> None:
        if self._former or threading.current_thread() is not threading.main_thread():
            return

        def note(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self._signal is not None:
                raise KeyboardInterrupt
            # No more: Lightning's handler would talk to the other processes while they talk about something else.
            self._signal = signal.Signals(number)
            if trainer.is_global_zero:
                again = "; once more to stop at once" if number == signal.SIGINT else ""
                sys.stderr.write(f"\n{self._signal.name}: stopping after this step and saving{again}\n")

        for number in _SIGNALS:
            self._former[number] = note, signal.signal(number, note)

    def _stop_if_asked(self, trainer: pl.Trainer, save: bool = True) -> None:
        if self._is_asked():
            self._stop(trainer, save)

    def _is_asked(self) -> bool:
        """Whether any of the processes was told to stop; all of them have to ask."""
        number = self._highest(0 if self._signal is None else int(self._signal))
        if number:  # else one may have come in the meantime
            self._signal = signal.Signals(number)
        return number > 0

    def _highest(self, number: int) -> int:
        """The highest number of all processes."""
        if self._group is None:
            return number
        highest = torch.tensor(number)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self._group)
        return int(highest)

    def _stop(self, trainer: pl.Trainer, save: bool) -> NoReturn:
        assert self._signal is not None
        if save:
            self._save(trainer)
        elif trainer.is_global_zero:
            self._say(trainer, _last_checkpoint(trainer))
        raise Stopped(128 + self._signal)

    def _save(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt, all processes together, and say how to go on."""
        path = _last_checkpoint(trainer)
        if path is not None:
            trainer.save_checkpoint(path)
        handler: Any = self._former[self._signal][1] if self._signal in self._former else None
        if self._signal == signal.SIGUSR1 and callable(handler):
            handler(signal.SIGUSR1, None)  # Lightning's, which saves for SLURM and has it start the job again
        elif trainer.is_global_zero:
            self._say(trainer, path)

    def _say(self, trainer: pl.Trainer, path: Path | None) -> None:
        if path is None or not path.exists():
            text = "nothing was saved"
        else:
            config = "" if self._run is None else f" --config {self._run.config}"
            text = f"saved; to go on: gscnn-fit fit{config} --ckpt_path {path}"
        sys.stderr.write(f"stopped after step {trainer.global_step}: {text}\n")


def _train_again(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Have the weights of the training in the network, and an average of them, which is validated, where it belongs."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            callback._swap_models(pl_module)


def _last_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Path of the run's last.ckpt; None if the run has none."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.filename == LAST and callback.dirpath:
            return Path(callback.dirpath) / f"{LAST}{callback.FILE_EXTENSION}"
    return None
