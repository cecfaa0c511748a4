"""Names in docstrings, such as `GSCNN`, become links where the site has one thing of that name, wherever it lives."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or node.get("reftype") not in ("obj", "class") or not name.isidentifier():
        return None
    found = {
        (entry.docname, entry.node_id)
        for full, entry in env.get_domain("py").objects.items()
        if full.rpartition(".")[2] == name and entry.objtype in ("class", "function", "exception", "data")
    }
    if len(found) != 1:
        return None
    ((docname, anchor),) = found
    return make_refnode(app.builder, node["refdoc"], docname, anchor, content, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look for names that Sphinx finds nothing for."""
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
