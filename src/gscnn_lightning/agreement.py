"""Whether a checkpoint goes with the classes, the network and the training that it meets; messages name both sides."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gscnn_lightning.errors import SettingError, WeightsError

_NAMED = 6


def check_classes(names: Sequence[str], others: Sequence[str], one: str, other: str, remedy: str = "") -> None:
    """Raise unless two sides have the same classes in the same order.

    Args:
        names: classes of one side; numbers where nobody has named them.
        others: classes of the other side.
        one: what the first side is, such as "checkpoint best.ckpt".
        other: what the second side is, such as "the data".
        remedy: what else helps than other data.

    Raises:
        SettingError: number, names or order differ.
    """
    unnamed = list(map(str, range(len(names))))
    if list(names) == list(others) or (len(names) == len(others) and unnamed in (list(names), list(others))):
        return
    found = f"{one} has {_told(names)}, {other} {_told(others)}"
    if len(names) == len(others):
        place = next(index for index, pair in enumerate(zip(names, others, strict=True)) if pair[0] != pair[1])
        found += f": class {place} is {names[place]} there and {others[place]} here"
        found += ", the same names in another order" if sorted(names) == sorted(others) else ""
    raise SettingError(
        f"{found}. Give data with the classes that the checkpoint was trained with, in their order{remedy}"
    )


def check_network(saved: Mapping[str, Any], own: Mapping[str, Any], one: str, names: Sequence[str]) -> None:
    """Raise unless a network has the settings of the one that a checkpoint is of.

    Args:
        saved: hyperparameters of the checkpoint; what it does not know is not compared.
        own: hyperparameters of the network.
        one: what the checkpoint is called.
        names: hyperparameters to compare.

    Raises:
        SettingError: one or more differ.
    """
    different = [name for name in names if name in saved and name in own and not same(saved[name], own[name])]
    if different:
        told = ", ".join(f"{name} {saved[name]} (here {own[name]})" for name in different)
        raise SettingError(f"{one} is of another network: {told}. Give the network the settings of its checkpoint")


def check_weights(saved: Mapping[str, Any], own: Mapping[str, Tensor], one: str) -> None:
    """Raise unless weights have the names and shapes that a network asks for.

    Args:
        saved: weights of a checkpoint.
        own: weights of the network.
        one: what the checkpoint is called.

    Raises:
        WeightsError: some are missing, unknown, no tensors or of another shape.
    """
    wrong = {name: value for name, value in saved.items() if name in own and _shape(value) != _shape(own[name])}
    found = {
        "are missing": [name for name in own if name not in saved],
        "are not known here": [name for name in saved if name not in own],
        "have another shape": [f"{n}: {_shape(value)} there, {_shape(own[n])} here" for n, value in wrong.items()],
    }
    told = ", ".join(f"{len(names)} {what} ({names[0]})" for what, names in found.items() if names)
    if told:
        raise WeightsError(
            f"{one} does not fit its network: of {len(own)} tensors {told}. It was altered or comes from another "
            "version: give best.ckpt or last.ckpt of a run as they are"
        )


def check_optimizer(checkpoint: Mapping[str, Any], optimizer: Mapping[str, Any], one: str) -> None:
    """Raise unless a training can go on from a checkpoint with an optimizer.

    Args:
        checkpoint: content of the file.
        optimizer: class path and arguments of the training.
        one: what the checkpoint is called.

    Raises:
        WeightsError: the checkpoint has weights alone.
        SettingError: it was trained with another optimizer.
    """
    if not all(name in checkpoint for name in ("optimizer_states", "lr_schedulers", "loops")):
        raise WeightsError(
            f"{one} has weights alone, without the state of a training: it can be validated, tested and used to "
            "predict, but no training can go on from it"
        )
    saved = dict(checkpoint.get("hyper_parameters", {})).get("optimizer") or {}
    before, now = saved.get("class_path"), optimizer.get("class_path")
    if before is not None and before != now:
        raise SettingError(
            f"{one} was trained with optimizer {before}, here it is {now}: a training goes on with its own; give "
            f"--optimizer {before}"
        )


def check_end(checkpoint: Mapping[str, Any], max_epochs: int | None, max_steps: int, one: str) -> None:
    """Raise unless something is left to train after a checkpoint.

    Args:
        checkpoint: content of the file.
        max_epochs: of the trainer, None or -1 for no limit.
        max_steps: of the trainer, -1 for no limit.
        one: what the checkpoint is called.

    Raises:
        WeightsError: the checkpoint does not say how far it is.
        SettingError: it has as many epochs or steps already.
    """
    try:
        epochs = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        steps = int(checkpoint["global_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{one} does not say how far its training was: give last.ckpt of a run") from error
    for name, limit, done in (("max_epochs", max_epochs, epochs), ("max_steps", max_steps, steps)):
        if limit is not None and limit != -1 and done >= limit:
            raise SettingError(
                f"{one} has {done} {name.removeprefix('max_')} and trainer.{name} is {limit}: nothing is left to "
                f"train; give --trainer.{name} {done + 1} or more, which counts from the beginning"
            )


def same(a: Any, b: Any) -> bool:  # noqa: ANN401
    """Whether two settings are the same, as plain data: files know no tuples.

    Example:
        >>> same((1, 2), [1.0, 2])
        True
    """
    return json.loads(json.dumps(a, default=str)) == json.loads(json.dumps(b, default=str))


def _told(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"


def _shape(value: object) -> str:
    return "x".join(map(str, value.shape)) or "one number" if isinstance(value, Tensor) else type(value).__name__
