"""What the parsers of the commands have in common."""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

from jsonargparse import DefaultHelpFormatter


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help that keeps the lines of the examples."""


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
