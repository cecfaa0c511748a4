"""Tables of several trainings: values with their spread, as text, Markdown and CSV."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table

from gscnn_lightning.terminal import new_table


class TextTable(NamedTuple):
    """A table whose cells are text.

    Attributes:
        title: heading.
        columns: headings of the columns.
        cells: a list per row.
    """

    title: str
    columns: list[str]
    cells: list[list[str]]

    def for_terminal(self) -> Table:
        """The table with its first column to the left, the others to the right."""
        table = new_table(self.title)
        for index, column in enumerate(self.columns):
            # Where it is too wide, words are wrapped, and no number is cut.
            table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
        for line in self.cells:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        """Title and table in Markdown."""
        lines = [self.columns, ["-", *("-:" for _ in self.columns[1:])], *self.cells]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one score over seeds.

    Attributes:
        mean: arithmetic mean; NaN without values.
        std: sample standard deviation; NaN for fewer than two values.
        low: lowest value.
        high: highest value.
        count: number of values.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Spread of numbers, of which NaN are left out.

        Example:
            >>> Spread.of([1.0, 2.0, 3.0, math.nan])
            Spread(mean=2.0, std=1.0, low=1.0, high=3.0, count=3)
        """
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        std = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(statistics.fmean(known), std, min(known), max(known), len(known))

    def text(self, sign: str = "", with_std: bool = False) -> str:
        """Mean ± standard deviation, or ± half the distance between the lowest and the highest value.

        Example:
            >>> spread = Spread.of([61.9, 63.1])
            >>> spread.text(), spread.text("+", with_std=True), Spread.of([4.0]).text()
            ('62.5 ±0.6', '+62.5 ±0.8', '4.0')
        """
        if not self.count:
            return "-"
        width = self.std if with_std else (self.high - self.low) / 2
        return f"{round(self.mean, 1) + 0.0:{sign}.1f}" + (f" ±{width:.1f}" if self.count > 1 else "")


def number(value: float, form: str) -> str:
    """A number as text, a dash for NaN.

    Example:
        >>> number(1234, "{:,}"), number(math.nan, "{:.1f}")
        ('1,234', '-')
    """
    return form.format(value) if math.isfinite(value) else "-"
