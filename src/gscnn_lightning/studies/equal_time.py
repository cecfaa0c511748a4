"""Epochs for the rows of an ablation by which all of them train for the same time."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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

    The slowest row has the epochs of the config. Where whole epochs would miss the time, as they do in trainings of
    few, they are given another length: in one that is still learning fast an eighth more time can decide. All rows are
    validated equally often: of more validations the best is better by chance alone.

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
    trainer = next(iter(settings.values()))["trainer"]
    for row, one in settings.items():
        _check(one["trainer"], labels[row])
    epochs_of_config = trainer["max_epochs"]
    lengths = _lengths(settings)
    path = out / "times.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seconds": {}}
    seconds = _measured(rows, labels, kept, step_seconds)
    of_epoch = {row: seconds[row] * (length[0] // length[1] if length else 1) for row, length in lengths.items()}
    budget: float = kept.setdefault("epoch_seconds_of_slowest", max(of_epoch.values()))
    write_json(path, kept)
    validations = math.ceil(epochs_of_config / (trainer.get("check_val_every_n_epoch") or 1))
    given = {}
    for row, length in lengths.items():
        wanted = epochs_of_config * budget / of_epoch[row]
        epochs, every = _epochs_between(wanted, validations, of_any_length=length is not None)
        given[row] = ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(every)]
        text = f"{1e3 * seconds[row]:.0f} ms a step, {epochs} epochs"
        if length is not None and abs(wanted / epochs - 1) > _TOLERATED:
            samples, batch = length
            steps = max(1, round(wanted / epochs * (samples // batch)))
            given[row] += ["--data.samples_per_epoch", str(steps * batch)]
            text += f" of {steps * batch} samples"
        say(f"  {labels[row]}: {text}, {math.ceil(epochs / every)} validations")
    return given


def _check(trainer: Mapping[str, Any], label: str) -> None:
    """Raise unless epochs alone say how long a training is, and how often it is validated."""
    told = f"rows of equal time are given epochs, and {label} has"
    if (trainer.get("max_epochs") or -1) < 1 or trainer.get("max_steps", -1) > 0:
        raise SettingError(
            f"{told} max_epochs {trainer.get('max_epochs')} and max_steps {trainer.get('max_steps', -1)}: give "
            "--trainer.max_epochs, those of the slowest row, without --trainer.max_steps"
        )
    for name, instead in (
        ("limit_train_batches", "give --data.samples_per_epoch"),
        ("val_check_interval", "give --trainer.check_val_every_n_epoch"),
    ):
        if trainer.get(name) not in (None, 1.0) or isinstance(trainer.get(name), int):
            raise SettingError(f"{told} {name} {trainer[name]}: leave it out, and {instead}")


def _lengths(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int] | None]:
    """Training samples of an epoch and of a step of every row; None of a data module that has no setting for them."""
    found: dict[str, tuple[int, int] | None] = {}
    looked_up: dict[str, tuple[int, int] | None] = {}
    for row, one in settings.items():
        key = json.dumps(one["data"], sort_keys=True)
        if key not in looked_up:
            looked_up[key] = _length(one["data"])
        found[row] = looked_up[key]
    return found


def _length(data: dict[str, Any]) -> tuple[int, int] | None:
    module = instantiate_class((), data)
    if not isinstance(module, SegmentationDataModule):
        return None
    if module.samples_per_epoch is None:
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


def _epochs_between(wanted: float, validations: int, of_any_length: bool) -> tuple[int, int]:
    """Number of epochs and of those between two validations; epochs of any length allow for just so many validations.

    Example:
        >>> _epochs_between(51.3, 5, True), _epochs_between(51.3, 50, True), _epochs_between(51.3, 50, False)
        ((51, 11), (50, 1), (51, 2))
    """
    whole = max(1, round(wanted))
    if not of_any_length:
        return whole, math.ceil(whole / validations)
    nearest = {max(1, math.floor(wanted / validations)), math.ceil(wanted / validations)}
    # A training is validated after its last epoch in any case.
    possible = [(min(max(whole, (validations - 1) * every + 1), validations * every), every) for every in nearest]
    return min(possible, key=lambda one: (abs(math.log(one[0] / wanted)), one))
