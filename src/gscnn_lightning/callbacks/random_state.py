"""Random numbers that go on where a checkpoint left them, in every process."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor

from gscnn_lightning.errors import WeightsError
from gscnn_lightning.plain import fits

_KEY = "random_states"


class RandomState(pl.Callback):
    """Keeps the random generators of all processes in checkpoints, and sets them again when a training goes on.

    Those of torch on the CPU and on the process' GPU, of NumPy and of Python. With the order of the samples, which is a
    function of the seed and the progress, a resumed training then takes the steps that the undisturbed one would have
    taken. A checkpoint of another number of processes has no states for these; it is said, and they go on with what
    ``seed_everything`` gave them.
    """

    def __init__(self) -> None:
        self._to_restore: dict[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of all processes; a collective call, as saving a checkpoint is."""
        own = random_state(trainer.strategy.root_device)
        states = [own]
        if trainer.world_size > 1:
            states = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(states, own)
        checkpoint[_KEY] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the state of this process until the training goes on.

        Raises:
            WeightsError: the states are none.
        """
        states = checkpoint.get(_KEY, [])
        for state in states if isinstance(states, list) else [states]:
            check_random_state(state, f"checkpoint {trainer.ckpt_path}")
        if len(states) == trainer.world_size:
            self._to_restore = states[trainer.global_rank]
        elif states:
            rank_zero_info(
                f"The checkpoint has the random numbers of {len(states)} processes, and this training has "
                f"{trainer.world_size}: it goes on with others"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the generators; what Lightning does before, such as a sanity check, may have drawn numbers, too."""
        if self._to_restore is not None:
            try:
                set_random_state(self._to_restore, trainer.strategy.root_device)
            except Exception as error:  # that of a GPU's generator, which only the GPU knows
                raise _no_states(error, f"checkpoint {trainer.ckpt_path}") from error
            self._to_restore = None


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the generators of this process, as tensors, numbers and lists, which load with ``weights_only``.

    Args:
        device: the state of a GPU's generator is among them if this is one.
    """
    kind, keys, *numbers = np.random.get_state()  # noqa: NPY002  # the global generator is what foreign code uses
    version, words, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *numbers],
        "python": [version, list(words), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def check_random_state(state: Any, name: str) -> None:  # noqa: ANN401
    """Raise unless generators can have a state, which is tried with generators of its own.

    Args:
        state: what `random_state` told, if the checkpoint is as it was written.
        name: what the checkpoint is called.

    Raises:
        WeightsError: they cannot.
    """
    try:
        torch.Generator().set_state(_on_cpu(state["torch"]))
        kind, keys, *numbers = state["numpy"]
        np.random.RandomState().set_state((kind, _on_cpu(keys).numpy().astype(np.uint32), *numbers))
        if not fits(numbers, tuple[int, int, float]) or not 0 <= numbers[0] <= len(keys):  # which NumPy takes as it is
            raise ValueError(f"NumPy's generator stands at {numbers[0]} of {len(keys)}")
        version, words, gauss = state["python"]
        random.Random().setstate((version, tuple(words), gauss))
        if not fits(gauss, float | None) or not isinstance(state.get("cuda", state["torch"]), Tensor):
            raise TypeError("a number or a tensor was expected")
    except Exception as error:
        raise _no_states(error, name) from error


def _no_states(error: Exception, name: str) -> WeightsError:
    reason = " ".join(str(error).split())[:200]
    return WeightsError(
        f"{name}: {_KEY} are no states of random generators ({type(error).__name__}: {reason}): it was altered or "
        "comes from elsewhere. Give last.ckpt of a run"
    )


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the generators to what `random_state` told.

    Args:
        state: that.
        device: as for `random_state`; a GPU's generator stays as it is if the state is from a CPU.
    """
    torch.set_rng_state(_on_cpu(state["torch"]))
    kind, keys, *numbers = state["numpy"]
    np.random.set_state((kind, _on_cpu(keys).numpy().astype(np.uint32), *numbers))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_on_cpu(state["cuda"]), device)


def _on_cpu(state: Tensor) -> Tensor:
    """A checkpoint may have been loaded onto the device of the weights."""
    return state.cpu()
