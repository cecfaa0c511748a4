"""The command line of tools that take a config of ``gscnn-fit`` and need its data module only."""

import inspect
import warnings
from argparse import SUPPRESS
from collections.abc import Callable
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser, instantiate_class

from gscnn_lightning.cli import GSCNNCLI


class DataCLI(GSCNNCLI):
    """Parses what ``gscnn-fit`` parses, settings of a tool beside it, and calls the tool with the data module.

    Args:
        name: what the user typed, for the help.
        tool: function with the data module as argument ``data`` and its own settings as further arguments.
        args: arguments as on the command line.
    """

    def __init__(self, name: str, tool: Callable[..., None], args: list[str]) -> None:
        self.name = name
        self.tool = tool
        # What follows the name of the tool is handed on on purpose.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended to run from within Python")
        super().__init__(["fit", *args])

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one subcommand whose configs hold everything."""
        return {"fit": GSCNNCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The settings of a training and those of the tool."""
        super().add_arguments_to_parser(parser)
        parser.add_function_arguments(self.tool, skip={"data"})

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Make the help show what concerns the tool only."""
        super().setup_parser(*args, **kwargs)
        parser = self._parser("fit")
        parser.prog = self.name
        parser.description = inspect.cleandoc(self.tool.__doc__ or "").partition("\n\nArgs:")[0]
        shown = {"help", "config", *self._settings()}
        for action in parser._actions:
            if action.dest not in shown and action.dest.partition(".")[0] != "data":
                action.help = SUPPRESS

    def instantiate_classes(self) -> None:
        """Make the data module; network, optimizer and trainer stay text."""
        self.datamodule = instantiate_class((), self.config["fit"]["data"].as_dict())

    def _run_subcommand(self, subcommand: str) -> None:
        self.tool(self.datamodule, **{name: self.config[subcommand][name] for name in self._settings()})

    def _settings(self) -> list[str]:
        return [name for name in inspect.signature(self.tool).parameters if name != "data"]
