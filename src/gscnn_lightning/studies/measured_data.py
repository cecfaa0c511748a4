"""The frames that predictions are measured on, from the arguments of a command."""

from collections.abc import Sequence
from pathlib import Path

from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import data_module
from gscnn_lightning.parsing import option_values
from gscnn_lightning.scoring.truth import Truth, truth_of_data, truth_of_folder
from gscnn_lightning.shipped_configs import read_config

_TOLERANCES = (3.0, 5.0, 9.0, 12.0)


def find_truth(labels: Path | None, classes: str | None, arguments: Sequence[str], split: str = "test") -> Truth:
    """Frames and labels of a folder, or of data as ``gscnn-fit`` takes them.

    Args:
        labels: folder of label maps, or None.
        classes: its class table.
        arguments: those after ``gscnn-fit fit`` that are about data.
        split: "val" or "test" of the data.

    Raises:
        SettingError: neither or both are given, or one without the other.
        DataError: the data cannot be used.
    """
    of_data = any(word.startswith(("--config", "--data")) for word in arguments)
    if labels is None and classes is None:
        if not of_data:
            raise SettingError(
                "which labels? Give --config or --data as to gscnn-fit, or --labels FOLDER with --classes FILE"
            )
        return truth_of_data(data_module(arguments), split)
    if of_data:
        raise SettingError("labels are given twice: give --config and --data, or --labels and --classes")
    if labels is None or classes is None:
        lacking = "--labels FOLDER" if labels is None else "--classes FILE, or a shipped table such as cityscapes"
        raise SettingError(f"--labels and --classes go together: give {lacking}, too")
    if arguments:
        raise SettingError(f"{arguments[0]} is no setting here: with --labels and --classes, there is no other data")
    return truth_of_folder(labels, classes)


def boundary_tolerances(given: Sequence[float] | None, arguments: Sequence[str]) -> tuple[float, ...]:
    """Tolerances of the boundary F-score: those given, or of the configs, or else those of `GSCNNTask`.

    Raises:
        SettingError: there is none, or one is negative.
    """
    chosen: Sequence[float] | None = given
    if chosen is None:
        for config in option_values(arguments, "--config"):
            model = read_config(config).get("model") or {}
            settings = {**model, **(model.get("init_args") or {})} if isinstance(model, dict) else {}
            chosen = settings.get("boundary_tolerances", chosen)
    chosen = _TOLERANCES if chosen is None else chosen
    try:
        tolerances = tuple(float(tolerance) for tolerance in chosen)
    except (TypeError, ValueError):
        tolerances = ()
    if not tolerances or not all(0 <= tolerance < float("inf") for tolerance in tolerances):
        raise SettingError(
            f"tolerances is {chosen}: give one or more distances in pixels, or fractions of the diagonal below 1"
        )
    return tolerances
