"""The directive `measured`: a table of what was measured, made of a file in docs/results.

A file is JSON: "about", a sentence on machine and versions; "columns", their headings; "rows". A cell is a number or a
text, null where nothing was measured, or [mean, standard deviation]. Numbers are shown with the digits that they have
in the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[1] / "results"


class Number(str):
    """A number as it is written."""


def read(name: str) -> dict[str, Any]:
    """What a result file holds; every row has a cell per column."""
    text = (RESULTS / name).read_text(encoding="utf-8")
    table = json.loads(text, parse_float=Number, parse_int=Number)
    for row in table["rows"]:
        if len(row) != len(table["columns"]):
            raise ValueError(f"{name}: {row} has {len(row)} cells for {len(table['columns'])} columns")
    return table


def text_of(cell: str | Sequence[Number] | None) -> str:
    """A cell in words."""
    if cell is None:
        return "-"
    if isinstance(cell, list):
        mean, deviation = cell
        return f"{mean} ± {deviation}"
    return cell


class Measured(SphinxDirective):
    """``{measured} FILE``: the table of a result file, with a link to the file."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Table and source."""
        name = self.arguments[0]
        try:
            table = read(name)
        except (OSError, ValueError, KeyError) as error:
            raise self.error(f"result file {name} cannot be shown: {error}") from error
        self.env.note_dependency(str(RESULTS / name))
        width = len(table["columns"])
        group = nodes.tgroup(cols=width)
        group += [nodes.colspec(colwidth=1) for _ in range(width)]
        group += nodes.thead("", self._row(table["columns"], False))
        group += nodes.tbody("", *(self._row(row, True) for row in table["rows"]))
        address = f"{self.config.html_theme_options['source_repository']}blob/main/docs/results/{name}"
        link = nodes.reference("", name, refuri=address)
        sentence, _ = self.parse_inline(table["about"])
        about = nodes.paragraph("", "", *sentence, nodes.Text(" Numbers: "), link, nodes.Text("."))
        about["classes"].append("measured-about")
        return [nodes.table("", group, classes=["measured"]), about]

    def _row(self, cells: Sequence[Any], is_body: bool) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            content, _ = self.parse_inline(text_of(cell))
            is_number = is_body and (isinstance(cell, Number) or not isinstance(cell, str))
            row += nodes.entry("", nodes.paragraph("", "", *content), classes=["number"] if is_number else [])
        return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
