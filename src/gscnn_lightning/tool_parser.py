"""What the parsers of the commands have in common."""

import difflib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter

from gscnn_lightning.errors import SettingError


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help that keeps the lines of the examples."""


class ToolParser(ArgumentParser):
    """Parser of a tool that knows its own settings only, and hands all others on to ``gscnn-fit``.

    Args:
        prog: what the user typed.
        description: help text; its lines stay as they are.
    """

    def __init__(self, prog: str, description: str) -> None:
        # Half a name may be that of a setting which is to be handed on.
        super().__init__(prog, None, description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """As every parser does it; what is handed on must not be a misspelling of an own setting.

        Raises:
            SettingError: something is spelt almost like a setting of the tool.
        """
        known, others = super().parse_known_args(*args, **kwargs)
        for word in (other.partition("=")[0] for other in others):
            close = difflib.get_close_matches(word, self._option_string_actions, n=1, cutoff=0.8)
            if word.startswith("--") and close:
                raise SettingError(f"{word} is no setting: did you mean {close[0]}? All settings: {self.prog} --help")
        return known, others

    def error(self, message: str) -> NoReturn:
        """Raise what the command line prints as one message.

        Raises:
            SettingError: always.
        """
        raise SettingError(f"{message}. All settings: {self.prog} --help")


def underscored(args: Sequence[str]) -> list[str]:
    """Arguments in which options may be written with dashes, as parameters are named; values stay as they are.

    Example:
        >>> underscored(["a-b", "--cityscapes-submission=my-split", "-h"])
        ['a-b', '--cityscapes_submission=my-split', '-h']
    """
    result = []
    for arg in args:
        name, equals, value = arg.partition("=")
        result.append("--" + name[2:].replace("-", "_") + equals + value if arg.startswith("--") else arg)
    return result
