"""Epochs for the rows of an ablation by which all of them train for the same time."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.cli import instantiate_class

from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import parsed_settings
from gscnn_lightning.run_folder.score_files import write_json
from gscnn_lightning.terminal import say

StepSeconds = Callable[[Mapping[str, Sequence[str]]], Mapping[str, float]]
"""Measures the training steps of rows, in turns, from their arguments; seconds by row."""

GIVEN = ("trainer.max_epochs", "trainer.check_val_every_n_epoch", "data.init_args.samples_per_epoch")
"""Settings that rows of equal time are given here."""

_TOLERATED = 0.02
"""Largest relative difference of the time of rows that is left as it is."""


def epochs_of_equal_time(
    rows: Mapping[str, Sequence[str]], labels: Mapping[str, str], out: Path, step_seconds: StepSeconds
) -> dict[str, list[str]]:
    """Arguments for the epochs of every row, by the time of its steps, which is measured once and kept in the folder.

    The slowest row has the epochs of the config, and the others more or longer ones. All rows are validated equally
    often, as of more validations the best is better by chance alone. Where no number of whole epochs does both, epochs
    have another length: in a training that is still learning fast an eighth more time can decide.

    Args:
        rows: arguments of ``gscnn-fit fit`` by row, but for the epochs.
        labels: what rows are called.
        out: folder of the ablation, for times.json.
        step_seconds: measures rows that are not in it yet; one that is gets measured beside them, as no machine is
            always as fast.

    Raises:
        SettingError: the settings of a training do not leave its time to its epochs.
    """
    settings = {row: parsed_settings(arguments) for row, arguments in rows.items()}
    first = next(iter(settings.values()))["trainer"]
    for row, one in settings.items():
        _check(one["trainer"], first, labels[row])
    lengths = _lengths(settings)
    path = out / "times.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seconds": {}}
    seconds = _measured(rows, labels, kept, step_seconds)
    of_epoch = {row: seconds[row] * (samples // batch) for row, (samples, batch) in lengths.items()}
    budget: float = kept.setdefault("epoch_seconds_of_slowest", max(of_epoch.values()))
    write_json(path, kept)
    validations = math.ceil(first["max_epochs"] / (first.get("check_val_every_n_epoch") or 1))
    given = {}
    for row, (samples, batch) in lengths.items():
        wanted = first["max_epochs"] * budget / seconds[row]
        plan = _epochs_of(wanted, samples // batch, validations)
        epochs = str(plan.epochs)
        given[row] = ["--trainer.max_epochs", epochs, "--trainer.check_val_every_n_epoch", str(plan.every)]
        text = f"{1e3 * seconds[row]:.0f} ms a step, {epochs} epochs"
        if plan.steps != samples // batch:
            given[row] += ["--data.samples_per_epoch", str(plan.steps * batch)]
            text += f" of {plan.steps * batch} samples"
        text += f", {validations} validation{'s' if validations > 1 else ''}"
        missed = plan.epochs * plan.steps / wanted - 1
        if abs(missed) > _TOLERATED:
            text += f", {100 * abs(missed):.0f} % {'more' if missed > 0 else 'less'} time, as epochs are of whole steps"
        say(f"  {labels[row]}: {text}")
    return given


def _check(trainer: Mapping[str, Any], first: Mapping[str, Any], label: str) -> None:
    """Raise unless epochs alone say how long a training is, and how often it is validated."""
    told = f"rows of equal time are given epochs, and {label} has"
    if (trainer.get("max_epochs") or -1) < 1 or trainer.get("max_steps", -1) > 0:
        raise SettingError(
            f"{told} max_epochs {trainer.get('max_epochs')} and max_steps {trainer.get('max_steps', -1)}: give "
            "--trainer.max_epochs, those of the slowest row, without --trainer.max_steps"
        )
    for name in ("max_epochs", "check_val_every_n_epoch"):
        if trainer.get(name) != first.get(name):
            raise SettingError(
                f"{told} {name} {trainer.get(name)} of its own: leave it out there, and give --trainer.{name}"
            )
    for name, none, instead in (
        ("limit_train_batches", 1.0, "give --data.samples_per_epoch"),
        ("overfit_batches", 0.0, "give --data.samples_per_epoch"),
        ("val_check_interval", 1.0, "give --trainer.check_val_every_n_epoch"),
        ("max_time", None, "give --trainer.max_epochs"),
        ("fast_dev_run", False, "give --trainer.max_epochs"),
    ):
        value = trainer.get(name)
        if value is not None and (value != none or type(value) is not type(none)):
            raise SettingError(f"{told} {name} {value}: leave it out, and {instead}")


def _lengths(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Training samples of an epoch and of a step of every row."""
    data = {row: json.dumps(one["data"], sort_keys=True) for row, one in settings.items()}
    found = {same: _length(json.loads(same)) for same in set(data.values())}  # files of each are looked for once
    return {row: found[same] for row, same in data.items()}


def _length(data: dict[str, Any]) -> tuple[int, int]:
    module = instantiate_class((), data)
    if not isinstance(module, SegmentationDataModule):
        raise SettingError(
            f"rows of equal time have epochs of chosen lengths, which {type(module).__name__} has no setting for: "
            "derive it from SegmentationDataModule, or leave out --equal time"
        )
    if module.samples_per_epoch is None:
        module.cache_gb = 0  # frames are counted, not read
        module.setup("fit")
    samples, batch = module.samples_per_epoch or len(module.datasets["train"]), module.batch_size
    if samples < batch:
        raise SettingError(f"an epoch has {samples} training samples, and a batch {batch}: lower --data.batch_size")
    return samples, batch


def _measured(
    rows: Mapping[str, Sequence[str]], labels: Mapping[str, str], kept: dict[str, Any], step_seconds: StepSeconds
) -> dict[str, float]:
    """Seconds of a step of every row, those that are known from what is kept, where the others are put."""
    seconds: dict[str, float] = kept["seconds"]
    arguments: dict[str, list[str]] = kept.setdefault("arguments", {})
    new = [row for row in rows if row not in seconds]
    if new:
        candidates = {row: list(rows.get(row, arguments.get(row, ()))) for row in seconds}
        known = next((row for row in (*rows, *seconds) if candidates.get(row)), None)
        say(f"measuring the steps of {', '.join(labels[row] for row in new)} in turns")
        beside = {} if known is None else {known: candidates[known]}
        found = step_seconds({**beside, **{row: rows[row] for row in new}})
        scale = 1.0 if known is None else seconds[known] / found[known]
        seconds |= {row: scale * found[row] for row in new}
    arguments |= {row: list(rows[row]) for row in rows}
    return seconds


class _Epochs(NamedTuple):
    epochs: int
    every: int
    steps: int


def _epochs_of(wanted: float, steps: int, validations: int) -> _Epochs:
    """Epochs, of how many steps, of which one in so many is validated: for a number of steps in all, and validations.

    Args:
        wanted: number of steps in all.
        steps: those of a whole epoch; others are taken where whole ones miss the wanted number.
        validations: how many there are to be; one is after the last epoch in any case.

    Example:
        >>> _epochs_of(51.3 * 40, 40, 5), _epochs_of(51.3 * 40, 40, 50)
        (_Epochs(epochs=51, every=11, steps=40), _Epochs(epochs=50, every=1, steps=41))
    """
    number = wanted / steps
    # Of the numbers of epochs with so many validations, those around the wanted one.
    nearest = {max(1, math.floor(number / validations)), math.ceil(number / validations)}
    possible = []
    for every in nearest:
        for whole in (math.floor(number), math.ceil(number)):
            epochs = min(max(whole, (validations - 1) * every + 1), validations * every)
            possible += [_Epochs(epochs, every, length) for length in {steps, max(1, round(wanted / epochs))}]

    def badness(one: _Epochs) -> tuple[float, bool, float]:
        missed = abs(one.epochs * one.steps / wanted - 1)
        return max(missed, _TOLERATED), one.steps != steps, abs(math.log(one.epochs / number))

    return min(possible, key=badness)
