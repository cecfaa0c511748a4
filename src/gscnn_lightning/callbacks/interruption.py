"""What comes between the steps of a training: signals that end it, and files of its folder that are gone."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from gscnn_lightning.callbacks._trainer import best_checkpoint, between_steps, run_folder
from gscnn_lightning.callbacks.run_record import RunRecord
from gscnn_lightning.errors import TrainingError
from gscnn_lightning.run_folder import LAST, RunFolder

_GONE = 1000
"""Beyond the numbers of signals: the checkpoint of the best epoch is gone."""

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


class Stopped(SystemExit):
    """The training has ended by a signal; the exit code is 128 plus its number, as shells have it."""


class Interruption(Checkpoint):
    """Ends a fit by SIGTERM, SIGUSR1 or Ctrl-C at the next point that it can go on from exactly, and saves there.

    That is after the optimizer's step, or after a batch of a validation, which is then begun once more. A signal to any
    of several processes ends all of them there; they agree over a connection of their own, for which no device is
    waited. A second Ctrl-C ends at once. Under SLURM with requeueing, Lightning's
    own checkpoint and requeueing follow in place of the message.

    Where the folder of the run is deleted meanwhile, its config and record are written anew, and the training goes on.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._kept: dict[Path, bytes] = {}
        self._was_gone = self._has_begun = self._is_complete = False
        self._common_batches = self._batches = 0
        self._resumed: str | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._run: RunFolder | None = None
        self._validating = False
        self._group: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder while all processes are certainly there."""
        self._run = run_folder(trainer)
        self._has_begun = self._is_complete = False
        self._resumed = None
        if stage == "fit" and trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, now that Lightning has set up handlers of its own."""
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen where there is no sanity check; keep what the folder of the run cannot do without."""
        self._has_begun = True
        self._resumed = None if trainer.ckpt_path is None else str(trainer.ckpt_path)
        if self._run is not None and trainer.is_global_zero:
            files = (self._run.config, self._run.environment, self._run.classes)
            self._kept = {path: path.read_bytes() for path in files if path.is_file()}
        self._listen(trainer)
        # A folder that was renamed, or left on another machine, has taken the best checkpoint along.
        self._was_gone = self._resumed is not None
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
        """Count the batches after which all processes can be asked: some may have one more than others."""
        own = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._batches = 0
        if trainer.state.fn == TrainerFn.FITTING:
            self._common_batches = -self._highest(-int(min(sum(own), 2**31)))

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
        if trainer.state.fn == TrainerFn.FITTING:
            self._batches += 1
            self._validating = not trainer.sanity_checking
            if self._batches <= self._common_batches:
                self._stop_if_asked(trainer, save=self._validating)
            self._validating = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a validation that is interrupted begin once more: what its metrics had seen is not in the checkpoint.

        No checkpoint comes into a folder without a config.
        """
        self._write_anew(trainer)
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

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there is nothing to go on with."""
        self._is_complete = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._hear_no_more()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._hear_no_more()

    def ending(self, error: BaseException) -> str:
        """What a message about an error in a training ends with: what was saved, and how to go on; "" before it."""
        if not (self._has_begun or (isinstance(error, TrainingError) and self._run is not None)):
            return ""
        way_on = self._way_on()
        return f". {way_on[0].upper()}{way_on[1:]}"

    def _way_on(self) -> str:
        run = self._run
        config = f" --config {run.config}" if run is not None and run.config.exists() else ""
        if self._is_complete and run is not None and run.last_checkpoint.exists():
            best = run.best_checkpoint if run.best_checkpoint.exists() else run.last_checkpoint
            return f"the training is complete; to score it: gscnn-fit validate{config} --ckpt_path {best}"
        if run is not None and run.last_checkpoint.exists():
            last = run.last_checkpoint
            saved = f"saved up to step {_step_of(last)}"
        elif self._resumed is not None:
            last, saved = Path(self._resumed), "nothing was saved since"
        else:
            return "nothing was saved yet"
        return f"{saved}; to go on: gscnn-fit fit{config} --ckpt_path {last}"

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
            # Lightning's own handler would talk to the other processes while they may be talking about something else.
            self._signal = signal.Signals(number)
            if trainer.is_global_zero:
                again = "; once more to stop at once" if number == signal.SIGINT else ""
                sys.stderr.write(f"\n{self._signal.name}: stopping after this step and saving{again}\n")

        if trainer.received_sigterm:  # by Lightning's handler, before
            self._signal, trainer._signal_connector.received_sigterm = signal.SIGTERM, False
        for number in _SIGNALS:
            self._former[number] = note, signal.signal(number, note)

    def _stop_if_asked(self, trainer: pl.Trainer, save: bool = True) -> None:
        """Stop all processes if one has been told to; have all of them know if the best checkpoint is gone."""
        self._write_anew(trainer)
        asked = self._highest(max(self._signal or 0, _GONE * (self._was_gone and _is_best_missing(trainer))))
        self._was_gone = False
        if asked == _GONE:
            _choose_best_anew(trainer)
        elif asked:
            self._signal = signal.Signals(asked)
            if save:
                if self._validating:
                    _train_again(trainer, trainer.lightning_module)
                self._save(trainer)
            elif trainer.is_global_zero:
                self._say(trainer)
            raise Stopped(128 + self._signal)

    def _highest(self, value: int) -> int:
        """The highest of the numbers of all processes."""
        if self._group is None:
            return value
        number = torch.tensor(value)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(number)

    def _is_gone(self) -> bool:
        return bool(self._kept) and not any(path.exists() for path in self._kept)

    def _write_anew(self, trainer: pl.Trainer) -> None:
        """Write config and record of the run where its folder has been deleted."""
        if self._run is not None and self._is_gone():
            self._was_gone = True
            self._run.path.mkdir(parents=True, exist_ok=True)
            for path, content in self._kept.items():
                path.write_bytes(content)
            names = ", ".join(path.name for path in self._kept)
            rank_zero_info(
                f"{self._run.path} has been deleted after step {trainer.global_step} or just before: the training goes "
                f"on and has written {names} anew; earlier scores, pictures and checkpoints are lost"
            )

    def _save(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt, all processes together, and say how to go on."""
        path = _last_checkpoint(trainer)
        if path is not None:
            trainer.save_checkpoint(path, weights_only=False)
        handler: Any = self._former[self._signal][1] if self._signal in self._former else None
        if self._signal == signal.SIGUSR1 and callable(handler):
            handler(signal.SIGUSR1, None)  # Lightning's, which saves for SLURM and has it start the job again
        elif trainer.is_global_zero:
            self._say(trainer)

    def _say(self, trainer: pl.Trainer) -> None:
        sys.stderr.write(f"stopped after step {trainer.global_step}: {self._way_on()}\n")


def _is_best_missing(trainer: pl.Trainer) -> bool:
    best = best_checkpoint(trainer)
    path = "" if best is None else best.best_model_path
    return bool(path) and "://" not in path and not Path(path).exists()


def _choose_best_anew(trainer: pl.Trainer) -> None:
    """Have the next validated epoch be the best, as the checkpoint of the best before is lost."""
    best = best_checkpoint(trainer)
    if best is not None:
        best.best_k_models.clear()
        best.best_model_path, best.best_model_score, best.kth_best_model_path = "", None, ""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecord):
            callback.forget()


def _step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)["global_step"])


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
