"""One style of command line for every ``gscnn`` command: a function with its types, defaults and docstring."""

import ast
import difflib
import inspect
import re
import textwrap
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from gscnn_lightning.errors import SettingError

OTHERS = "others"
"""Parameter of a command for the arguments that it hands on, to ``gscnn-fit`` or to a network."""


Function = TypeVar("Function", bound=Callable[..., Any])

_HANDED_TO: dict[Callable[..., Any], tuple[Path, str, str, tuple[str, ...]]] = {}


def arguments_of(file: str, name: str, first: str, without: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Decorator of a command that hands its other arguments on to a class: the command's help lists those, too.

    The class is read from its source: importing it would take seconds.

    Args:
        file: module of the class, relative to this package.
        name: of the class.
        first: the argument that may stand without its name as the very first.
        without: arguments of the class that the command has no use for.
    """

    def note(function: Function) -> Function:
        _HANDED_TO[function] = Path(__file__).parent / file, name, first, tuple(without)
        return function

    return note


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help that keeps the lines of the examples."""


class CommandParser(ArgumentParser):
    """The command line of a function.

    Its positional-only parameters are given without a name (which may be given all the same), the last of them
    repeatedly if it is a sequence; all others are options, written with dashes or underscores, in any order. The
    docstring up to "Args:" is the help text, and what it says of the arguments their help. A parameter `OTHERS` takes
    all options that are not the command's own, with their values, unless they are a misspelling of one that is.

    Args:
        prog: what the user typed.
        function: what is called; it should import what is slow when it runs, so that its help is quick.
    """

    def __init__(self, prog: str, function: Callable[..., Any]) -> None:
        text = inspect.getdoc(function) or ""
        description = text.partition("\n\nArgs:")[0]
        super().__init__(prog=prog, description=description, formatter_class=HelpFormatter, allow_abbrev=False)
        parameters = inspect.signature(function).parameters.values()
        self._function = function
        self._unnamed = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self._hands_on = any(p.name == OTHERS for p in parameters)
        self._switches = {f"--{p.name}" for p in parameters if p.annotation is bool}
        helps = _argument_texts(text)
        for parameter in self._unnamed:
            several = get_origin(parameter.annotation) is Sequence
            kind = parameter.annotation.__args__[0] if several else parameter.annotation
            count: dict[str, Any] = {"nargs": "*"} if several else {}
            if not several and parameter.default is not parameter.empty:
                count = {"nargs": "?", "default": parameter.default}
            self.add_argument(parameter.name, type=kind, help=helps.get(parameter.name, SUPPRESS), **count)
        skipped: set[str | int] = {p.name for p in self._unnamed}
        if self._hands_on:
            skipped.add(OTHERS)
        self.add_function_arguments(function, as_group=False, skip=skipped)
        if self._hands_on:
            self.epilog = f"all other arguments: {helps.get(OTHERS, 'handed on')}{_handed_on(function)}"

    def run(self, args: Sequence[str]) -> Any:  # noqa: ANN401
        """Call the function with the arguments of a command line, and return what it returns.

        Raises:
            SettingError: the arguments cannot be used; the message says why.
        """
        unnamed, given, others = self.parse(args)
        return self._function(*unnamed, **given, **({OTHERS: others} if self._hands_on else {}))

    def parse(self, args: Sequence[str]) -> tuple[list[Any], dict[str, Any], list[str]]:
        """What the function would be called with: values without a name, by name, and arguments that are handed on.

        Raises:
            SettingError: the arguments cannot be used; the message says why.
        """
        first = _HANDED_TO[self._function][2] if self._function in _HANDED_TO else ""
        if first and args and not args[0].startswith("-"):
            args = [f"--{first}", *args]
        own, others = self._split(args)
        given = self.parse_args(own).as_dict()
        unnamed = [given.pop(parameter.name) for parameter in self._unnamed]
        return unnamed, given, others

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what the command line prints as one message.

        Raises:
            SettingError: always.
        """
        raise SettingError(f"{plain_message(message)}\nAll settings: {self.prog} --help") from ex

    def _split(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """Own arguments, options behind the others and named as parameters are, and those that are handed on."""
        options = {word for action in self._actions for word in action.option_strings}
        known_by_place = {f"--{parameter.name}" for parameter in self._unnamed}
        words: list[str] = []
        named: dict[str, str] = {}
        own: list[str] = []
        others: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            option, equals, value = word.partition("=")
            name = "--config" if option == "-c" and self._hands_on else "--" + option[2:].replace("-", "_")
            if word == "--":
                words += left
                break
            if word in ("-h", "--help"):
                own.append(word)
            elif not option.startswith("--") and name != "--config":
                words.append(word)
            elif name in options | known_by_place:
                if name in self._switches and not equals and (not left or left[0].startswith("--")):
                    own += [name, "true"]
                    continue
                if not equals and not left:
                    self.error(f"{option} lacks its value")
                value = value if equals else left.pop(0)
                if not value:
                    self.error(f"{option} is empty: give a value, or leave it out")
                if name in known_by_place:
                    named[name[2:]] = value
                else:
                    own += [name, value]
            elif close := difflib.get_close_matches(name, options, n=1, cutoff=0.8):
                self.error(f"{option} is no setting: did you mean {close[0]}?")
            elif not self._hands_on:
                self.error(f"{option} is no setting")
            else:
                others.append(name + equals + value)
                others += [left.pop(0)] if not equals and left and not left[0].startswith("--") else []
        placed = self._placed(words, named)
        if "" in placed:
            self.error("an argument is empty: write what it is, or leave it out")
        if placed and not self._unnamed:
            self.error(f"{placed[0]!r} is no setting: settings begin with --")
        # What stands without a name comes last, where even dashes are no options.
        return [*own, *(["--", *placed] if placed else [])], others

    def _placed(self, words: list[str], named: dict[str, str]) -> list[str]:
        """Words without a name, and values that were given by the name of such a parameter, in their places."""
        left = list(words)
        placed: list[str] = []
        for parameter in self._unnamed:
            if parameter.name in named:
                placed.append(named[parameter.name])
            elif get_origin(parameter.annotation) is not Sequence:
                placed += [left.pop(0)] if left else []
        return [*placed, *left]


_TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'NoneType'>": "null",
    "<class 'pathlib.Path'>": "a path",
}


def plain_message(message: str, full_name: Callable[[str], str] = lambda name: name) -> str:
    r"""What a parser complains of, in one line: the setting, its value, and what it takes.

    Args:
        message: of jsonargparse, which lists every type that it has tried.
        full_name: gives the dotted name of a setting of which the parser tells the last part only.

    Example:
        >>> plain_message('Parser key "model.channels":\n  Expected a <class \'int\'>. Got value: many')
        'model.channels is many: it takes a whole number'
    """
    key = re.match(r'Parser key "([^"]*)":', message)
    value = re.search(r"Given value: (.*)", message) or re.search(r"Got value: (.*)", message)
    if key is None or value is None:
        return " ".join(message.split())
    listed = re.search(r"Subtypes: \[(.*)\]$", message, re.MULTILINE)
    each = re.findall(r"Expected an? (.+?)(?:\. Got value.*)?$", message, re.MULTILINE)
    kinds = _listed_types(listed[1]) if listed else each
    texts = [text for text in dict.fromkeys(text for kind in kinds for text in _type_texts(kind)) if text]
    wanted = " or ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)
    return f"{full_name(key[1])} is {value[1][:100]}: it takes {wanted or 'something else'}"


def _listed_types(text: str) -> list[str]:
    """Types of a list of them, whose own brackets may hold commas."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _type_texts(kind: str) -> list[str]:
    """What a type takes, in words."""
    if kind.startswith("typing.Literal["):
        return [value.strip("'") for value in _listed_types(kind.removeprefix("typing.Literal[")[:-1])]
    return [_TYPES[kind] if kind in _TYPES else _class_text(kind)]


def _class_text(kind: str) -> str:
    """A type with types in it, or a class, in words; "" of one that nobody writes on a command line."""
    known = re.match(r"(?:[\w.]*\.)?(tuple|list|Sequence|Iterable|dict|Mapping)\[(.*)\]$", kind)
    if known is not None and known[1] == "tuple":
        return f"a list [{known[2]}]"
    if known is not None and known[1] in ("dict", "Mapping"):
        return "keys with values"
    if known is not None:
        return f"a list of {known[2].rpartition('.')[2]}" if re.fullmatch(r"[\w.]+", known[2]) else "a list"
    named = re.match(r"<class '(?:.*\.)?(\w+)'>$", kind)
    if named is None or named[1] == "Tensor" or kind.startswith("dot import path"):
        return ""
    plain = {"list": "a list", "tuple": "a list", "dict": "keys with values"}
    return plain.get(named[1], f"the name of a class ({named[1]})")


def option_values(args: Sequence[str], option: str) -> list[str]:
    """Values of an option among arguments, as ``--option value`` or ``--option=value``, in order.

    Example:
        >>> option_values(["--config", "a.yaml", "--seed", "1", "--config=b.yaml"], "--config")
        ['a.yaml', 'b.yaml']
    """
    found = []
    for word, following in zip(args, [*args[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            found.append(value if equals else following)
    return found


def without_options(args: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments without some options and what is below them, and without their values.

    Example:
        >>> without_options(["fit", "--config", "a.yaml", "--trainer.logger.name=x"], ["--config", "--trainer.logger"])
        ['fit']
    """
    kept: list[str] = []
    skip = False
    for word in args:
        name, equals, _ = word.partition("=")
        if skip or any(name == option or name.startswith(option + ".") for option in options):
            skip = not skip and not equals
            continue
        kept.append(word)
    return kept


def summary(function: Callable[..., Any]) -> str:
    """The first line of the help of a command."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _handed_on(function: Callable[..., Any]) -> str:
    """Lines about the arguments of the class that a command hands its other arguments on to."""
    if function not in _HANDED_TO:
        return ""
    path, name, _, without = _HANDED_TO[function]
    found = next(
        n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef) and n.name == name
    )
    told = _argument_texts(ast.get_docstring(found) or "")
    texts = {argument: text for argument, text in told.items() if argument not in without}
    lines = (textwrap.fill(text, 92, initial_indent=" " * 4, subsequent_indent=" " * 4) for text in texts.values())
    return "\n\n" + "\n".join(f"  --{name}\n{line}" for name, line in zip(texts, lines, strict=True))


def _argument_texts(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    from docstring_parser import parse

    return {param.arg_name: " ".join((param.description or "").split()) for param in parse(docstring).params}
