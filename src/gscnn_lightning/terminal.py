"""What commands print: one console for text and tables, one kind of progress bar."""

import locale
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def say(what: RenderableType, stderr: bool = False) -> None:
    """Print text as it is, in one line however long, or a table.

    Args:
        what: text is printed without markup or colours of its own, as names of files and classes may be in it.
        stderr: print it where messages go, not where results go.
    """
    # A console of the moment: tests and notebooks exchange sys.stdout. Cells of tables are text as it is, too.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if isinstance(what, str):
        console.print(Text(what), soft_wrap=True)
    else:
        console.print(what)


def take_any_text() -> None:
    """Let this process print and write whatever text it is given, whatever the locale.

    What a stream cannot encode is printed as an escape: else a file name in another encoding, or a class name in a
    locale that does not know its letters, would end the process. Files that others open without an encoding, such as
    configs, are in UTF-8 where the system lets a process decide about that. Streams of notebooks are left alone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if locale.getpreferredencoding(False).lower().replace("-", "") != "utf8":
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def new_table(title: str = "") -> Table:
    """A table in the style of this library: title to the left, horizontal lines only.

    Args:
        title: heading; text as it is.
    """
    heading = Text(title, style="bold") if title else None
    return Table(title=heading, title_justify="left", box=box.HORIZONTALS, pad_edge=False)


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, with hours if there are any.

    Example:
        >>> clock(65), clock(7265)
        ('1:05', '2:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(total: int | None, description: str = "", disable: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, nothing elsewhere; it goes away when all is done.

    Args:
        total: number of things; None if it is not known.
        description: what is being done.
        disable: no bar.

    Yields:
        A function that moves the bar on by one; or, with ``done``, ``total`` and ``description``, to where it is said.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    shown = sys.stderr.isatty() and not disable
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True, disable=not shown
    ) as bar:
        task = bar.add_task(description, total=total)

        def move(done: int | None = None, total: int | None = None, description: str | None = None) -> None:
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done, total=total, description=description)

        yield move
