"""Lightning's searches for a learning rate and a batch size, beside the run that they are for."""

import copy
import math
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner.tuning import Tuner
from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.errors import SettingError

_LOWEST, _HIGHEST = 1e-6, 1.0
_STEPS = 100
_TRIAL_STEPS = 3
_MOST = 8192
_NEVER = 10**9
_KEPT = (
    *("accelerator", "precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("benchmark", "deterministic", "enable_progress_bar"),
)
"""Settings of the trainer that a search has in common with the run."""


def found_learning_rate(
    task: pl.LightningModule, data: pl.LightningDataModule, trainer: Mapping[str, Any], plot: Path | None
) -> float:
    """Learning rate at which the loss falls fastest while the rate grows from 1e-6 to 1, in 100 steps.

    The task, its data and the random numbers are afterwards what they were. Groups keep their proportion: that of the
    backbone has its multiple of the rate.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3; Lightning's
    `Tuner.lr_find`.

    Args:
        task: what would be trained.
        data: what it would be trained on.
        trainer: settings of the trainer.
        plot: picture of losses over rates to write, None for none.

    Raises:
        SettingError: the losses suggest nothing.
    """
    with _Search(task, data, trainer) as (model, module, searcher):
        _keep_proportions(model)
        finder = Tuner(searcher).lr_find(
            model, datamodule=module, min_lr=_LOWEST, max_lr=_HIGHEST, num_training=_STEPS, update_attr=False
        )
    suggestion = None if finder is None else finder.suggestion()
    if finder is None or suggestion is None or not math.isfinite(suggestion):
        raise SettingError("find_lr: the losses suggest no learning rate: give one with --optimizer.lr")
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        _draw(finder, plot)
    return float(f"{suggestion:.3g}")


def found_batch_size(task: pl.LightningModule, data: Any, trainer: Mapping[str, Any], samples: int) -> int:  # noqa: ANN401
    """Largest power of two that memory suffices for, by three training steps each.

    The task, its data and the random numbers are afterwards what they were.

    Args:
        task: what would be trained.
        data: what it would be trained on, with `batch_size` and `samples_per_epoch`.
        trainer: settings of the trainer.
        samples: of an epoch, the most that a batch can have.

    Raises:
        SettingError: memory does not suffice for one sample.
    """
    largest = 1 << (min(samples, _MOST).bit_length() - 1)
    steps: Counter[int] = Counter()
    with _Search(task, data, trainer) as (model, module, searcher):
        module.samples_per_epoch = _TRIAL_STEPS * 2 * _MOST  # trials are no epochs
        module.batch_size = 1  # Lightning makes the first loader before it sets a size
        # Sizes are counted here, as what Lightning returns need not be one that went well: it stops at `max_val`, and
        # at the number of frames, whether or not that failed.
        model.on_train_batch_end = lambda outputs, batch, batch_idx: steps.update([len(batch["image"])])
        # After a single sample that is too large, Lightning tries none.
        with suppress(ZeroDivisionError):
            Tuner(searcher).scale_batch_size(
                model, datamodule=module, mode="power", steps_per_trial=_TRIAL_STEPS, init_val=1, max_val=2 * largest
            )
    held = [size for size, count in steps.items() if count >= _TRIAL_STEPS]
    if not held:
        raise SettingError("find_batch_size: memory does not suffice for one sample: lower data.crop_size")
    return min(max(held), largest)


class _Search:
    """A copy of task and data, and a trainer that keeps, logs and validates nothing, for as long as a search takes."""

    def __init__(self, task: pl.LightningModule, data: pl.LightningDataModule, trainer: Mapping[str, Any]) -> None:
        self.task, self.data, self.settings = task, data, trainer

    def __enter__(self) -> tuple[Any, Any, pl.Trainer]:
        # Not all random numbers are those of loaders, which have their own.
        self._random = torch.get_rng_state()
        self._folder = tempfile.TemporaryDirectory(prefix="gscnn-search-")
        searcher = pl.Trainer(
            **{name: self.settings[name] for name in _KEPT if self.settings.get(name) is not None},
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=self._folder.name,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=_NEVER,
            max_epochs=_NEVER,
        )
        return copy.deepcopy(self.task), copy.deepcopy(self.data), searcher

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._random)
        self._folder.cleanup()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _keep_proportions(model: Any) -> None:  # noqa: ANN401
    """Let groups of parameters keep their proportion while Lightning gives all of them one rate."""
    made = model.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    rate = model.settings.optimizer["init_args"]["lr"] if model.settings.optimizer else 0
    shares = [group["lr"] / rate for group in optimizer.param_groups] if rate else []
    if all(share == 1 for share in shares):
        return
    usual = model.optimizer_step

    def step(_: object, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:  # noqa: ANN401
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] *= share
        usual(epoch, batch_idx, optimizer, closure)
        for group, before in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = before

    model.optimizer_step = types.MethodType(step, model)


def _draw(finder: Any, path: Path) -> None:  # noqa: ANN401
    import matplotlib as mpl

    mpl.use("Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = finder.plot(suggest=True)
    figure.savefig(path, dpi=120)
    rank_zero_info(f"losses by learning rate: {path}")
    import matplotlib.pyplot as plt

    plt.close(figure)
