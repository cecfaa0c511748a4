"""What ``gscnn-fit`` would run with given arguments, as plain data, for commands that take its configs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pytorch_lightning.cli import instantiate_class

from gscnn_lightning.cli import GSCNNCLI
from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.errors import SettingError
from gscnn_lightning.hub_files import HUB
from gscnn_lightning.parsing import option_values, without_options
from gscnn_lightning.run_folder import run_of_checkpoint
from gscnn_lightning.shipped_configs import read_config
from gscnn_lightning.trust.settings import check_run_data


class _SettingsCLI(GSCNNCLI):
    """Parses as ``gscnn-fit`` and stops there."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": GSCNNCLI.subcommands()["fit"]}

    def check_before_start(self) -> None:
        """Nothing starts: what a training needs beside its settings, such as a checkpoint, need not be there."""

    def _set_seed(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def after_instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def plain(self) -> dict[str, Any]:
        return yaml.safe_load(self._parser("fit").dump(self.config["fit"]))


def parsed_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """What ``gscnn-fit fit`` would run, as plain data without what is None; exits with a message if that is a mistake.

    Args:
        arguments: those after ``gscnn-fit fit``.
    """
    return _SettingsCLI(["fit", *arguments]).plain()


def data_module(arguments: Sequence[str]) -> SegmentationDataModule:
    """The data module that ``gscnn-fit fit`` would train on; exits with a message if there is a mistake.

    Args:
        arguments: those after ``gscnn-fit fit``. Of configs only the data count, so that those of other subcommands and
            of other machines serve, too; other arguments that are not about data are checked and have no effect.

    Returns:
        The module, before its `setup`.

    Raises:
        SettingError: a config cannot be read or names no data, or a setting of the data is out of range.
    """
    return instantiate_class((), data_settings(arguments))


def data_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Class path and arguments of the data module that ``gscnn-fit fit`` would train on; see `data_module`.

    Raises:
        SettingError: a config cannot be read or names no data.
    """
    configs = option_values(arguments, "--config")
    data = [_data_of(config) for config in configs]
    if configs and not any(data) and not any(word.startswith("--data") for word in arguments):
        raise SettingError(f"config {configs[-1]} names no data: give a config of gscnn-fit that does, or --data")
    settings = [word for part in data if part for word in ("--config", json.dumps({"data": part}))]
    parsed = _SettingsCLI(["fit", *settings, *without_options(arguments, ["--config"])])
    settings_of_data: dict[str, Any] = parsed.config["fit"]["data"].as_dict()
    return settings_of_data


def arguments_for_checkpoint(checkpoint: str, arguments: Sequence[str]) -> list[str]:
    """Arguments that name the data for a checkpoint: as given, or else with the config of the run which it lies in.

    Args:
        checkpoint: path of the file.
        arguments: those after ``gscnn-fit fit``.

    Raises:
        SettingError: neither names any data, or the run a data module of someone else that the arguments do not name.
    """
    run = None if checkpoint.startswith(HUB) else run_of_checkpoint(checkpoint)
    if run is not None and not option_values(arguments, "--config"):
        if not option_values(arguments, "--data"):  # else the class is the user's choice
            check_run_data(run.config)
        return ["--config", str(run.config), *arguments]
    if run is None and not any(word.startswith(("--config", "--data")) for word in arguments):
        raise SettingError(f"which data? {checkpoint} lies in no run with a config.yaml: give --config or --data")
    return list(arguments)


def _data_of(config: str) -> dict[str, Any]:
    """The data settings of a config; empty if it has none."""
    data = read_config(config).get("data")
    return data if isinstance(data, dict) else {"class_path": data} if isinstance(data, str) else {}


def check_same_settings(kept: Mapping[str, Any], settings: Mapping[str, Any], what: str, other: str = "--out") -> None:
    """Raise unless a folder's trainings were started with the settings that they are to go on with.

    Args:
        kept: nested settings that the folder was started with.
        settings: those of now.
        what: beginning of the message, such as "runs/a has another sweep".
        other: the setting that is to be another one, too.

    Raises:
        SettingError: they differ; the message names the first five differences.
    """
    different = different_settings(kept, settings)
    if different:
        raise SettingError(
            f"{what}: {'; '.join(different[:5])}. Give another {other}, or the settings that it was started with"
        )


def different_settings(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings in which two nested mappings differ, with both values.

    Example:
        >>> different_settings({"model": {"tau": 1.0, "norm": "batch"}}, {"model": {"tau": 0.5, "norm": "batch"}})
        ['model.tau 1.0 and 0.5']
    """
    found = []
    for key in dict.fromkeys([*a, *b]):
        first, second = a.get(key), b.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += different_settings(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append(f"{prefix}{key} {first} and {second}")
    return found
