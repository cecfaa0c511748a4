"""The directive `help-of-commands`: a section for every word behind ``gscnn``, with its help as in a terminal."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gscnn_lightning.commands.main import COMMANDS, _function
from gscnn_lightning.parsing import CommandParser


class HelpOfCommands(SphinxDirective):
    """``{help-of-commands}``: usage, text, examples and settings of all commands."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        sections: list[nodes.Node] = []
        for words in COMMANDS:
            name = " ".join(("gscnn", *words))
            section = nodes.section(ids=["-".join(("gscnn", *words))], names=[name])
            section += nodes.title("", name)
            shown = CommandParser(name, _function(words)).format_help()
            section += nodes.literal_block(shown, shown, language="none")
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("help-of-commands", HelpOfCommands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
