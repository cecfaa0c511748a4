"""The ``gscnn`` command: from the words that were typed to the function of a command."""

import difflib
import importlib
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gscnn_lightning.allocator import keep_memory
from gscnn_lightning.errors import GSCNNError, SettingError
from gscnn_lightning.parsing import CommandParser, summary
from gscnn_lightning.terminal import take_any_text

COMMANDS: dict[tuple[str, ...], str] = {
    ("new",): "new.new",
    ("scenes",): "scenes.scenes",
    ("data", "check"): "data.check",
    ("data", "preview"): "data.preview",
    ("data", "suspects"): "data.suspects",
    ("data", "pack"): "data.pack",
    ("predict",): "predict.predict",
    ("score",): "score.score",
    ("compare",): "compare.compare",
    ("report",): "report.report",
    ("ablate",): "ablate.ablate",
    ("sweep",): "sweep.sweep",
    ("export",): "export.export",
    ("cost",): "cost.cost",
    ("demo",): "demo.demo",
    ("publish",): "publish.publish",
    ("import-release",): "import_release.import_release",
    ("bench", "data"): "bench.data",
    ("bench", "shards"): "bench.shards",
    ("bench", "metrics"): "bench.metrics",
    ("bench", "score"): "bench.score",
    ("bench", "tracking"): "bench.tracking",
    ("bench", "step"): "bench.step",
    ("bench", "losses"): "bench.losses",
    ("bench", "inference"): "bench.inference",
    ("bench", "predict"): "bench.predict",
    ("bench", "loop"): "bench.loop",
}
"""Module and function below `gscnn_lightning.commands` of every command."""


def main(args: Sequence[str] | None = None) -> None:
    """Run ``gscnn`` with the arguments of the command line, or those given.

    Args:
        args: arguments as on the command line; `sys.argv` by default.
    """
    keep_memory()
    take_any_text()
    given = list(sys.argv[1:] if args is None else args)
    prog = "gscnn"
    try:
        words = _command(given)
        prog = " ".join(("gscnn", *words))
        code = CommandParser(prog, _function(words)).run(given[len(words) :])
    except GSCNNError as error:
        sys.stderr.write(f"{prog}: error: {error}\n")
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # not about a file that somebody named
            raise
        path = str(error.filename)
        path = path if len(path) <= 200 else f"{path[:60]}... ({len(path)} characters)"
        sys.stderr.write(f"{prog}: error: cannot use {path} ({error.strerror}): give another path\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        sys.exit(130)
    if code:
        sys.exit(code)


def _function(words: tuple[str, ...]) -> Callable[..., Any]:
    module, _, name = COMMANDS[words].rpartition(".")
    return getattr(importlib.import_module(f"gscnn_lightning.commands.{module}"), name)


def _command(given: Sequence[str]) -> tuple[str, ...]:
    """The words of the command that is called; prints the list and exits where there are none.

    Raises:
        SettingError: there is no such command.
    """
    before = tuple(itertools.takewhile(lambda word: not word.startswith("-"), given[:2]))
    found = next((words for words in (before[:2], before[:1]) if words in COMMANDS), None)
    if found is not None:
        return found
    group = before[:1] if any(words[:1] == before[:1] for words in COMMANDS) else ()
    rest = given[len(group) :]
    if not rest or rest[0] in ("-h", "--help"):
        sys.stdout.write(_help(group))
        sys.exit(0 if rest else 2)
    known = [words[len(group)] for words in COMMANDS if words[: len(group)] == group]
    close = difflib.get_close_matches(rest[0], known, n=1)
    hint = f"did you mean {' '.join((*group, close[0]))}?" if close else f"{', '.join(dict.fromkeys(known))}"
    raise SettingError(f"{' '.join((*group, rest[0]))} is no command: {hint}\nAll commands: gscnn --help")


def _help(group: tuple[str, ...]) -> str:
    """The list of all commands, or of those that begin with some words."""
    shown = {words: summary(_function(words)) for words in COMMANDS if words[: len(group)] == group}
    width = max(len(" ".join(words)) for words in shown)
    lines = [f"  {' '.join(words):<{width}}  {text}" for words, text in shown.items()]
    head = " ".join(("usage: gscnn", *group, "COMMAND ..."))
    return "\n".join([head, "", "Commands beside gscnn-fit.", "", *lines, "", "One command: gscnn COMMAND --help", ""])
