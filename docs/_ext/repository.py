"""Links out of docs/ into the repository, which work where files are looked at on a forge, work on the site, too.

``../notebooks/NAME.ipynb`` is the page of the notebook, any other file its address in the repository. The pages of
notebooks say why there are no outputs.
"""

import posixpath
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(#[^)\s]*)?(\))")

_log = logging.getLogger(__name__)


def _source_read(app: Sphinx, name: str, content: list[str]) -> None:
    if not str(app.env.doc2path(name)).endswith(".md"):
        return
    folder = posixpath.dirname(f"docs/{name}")

    def site_link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            _log.warning("link to %s, which is not there", path, location=name)
        if path.startswith("notebooks/"):
            # As the name of a page: a path would be followed to where the folder is linked to.
            address = posixpath.relpath(path.removesuffix(".ipynb"), posixpath.dirname(name) or ".")
        else:
            address = f"{app.config.html_theme_options['source_repository']}blob/main/{path}{match[3] or ''}"
        return f"{match[1]}{address}{match[4]}"

    content[0] = _LINK.sub(site_link, content[0])


def _doctree_read(app: Sphinx, tree: nodes.document) -> None:
    if not app.env.docname.startswith("notebooks/"):
        return
    title = next(tree.findall(nodes.title))
    name = f"{app.env.docname}.ipynb"
    address = f"{app.config.html_theme_options['source_repository']}blob/main/{name}"
    text = nodes.paragraph("", "", nodes.Text("Without outputs, as it is kept. To see them, run "))
    text += [nodes.reference("", name, refuri=address), nodes.Text(" in a clone.")]
    title.parent.insert(title.parent.index(title) + 1, nodes.note("", text))


def setup(app: Sphinx) -> dict[str, bool]:
    """Work on pages when they are read."""
    app.connect("source-read", _source_read)
    app.connect("doctree-read", _doctree_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
