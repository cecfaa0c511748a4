"""The directive `guides`: a table of contents that takes the pages of its list that are there, in its order."""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.directives.other import TocTree


class Guides(TocTree):
    """``{guides}``: as ``{toctree}``, without a warning for a page that is not written yet."""

    def run(self) -> list[nodes.Node]:
        """The table of contents."""
        self.env.note_reread()  # a page may have come or gone
        present = [line for line in self.content if line in self.env.found_docs]
        self.content = StringList(present, source=self.env.docname)
        return super().run()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("guides", Guides)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
