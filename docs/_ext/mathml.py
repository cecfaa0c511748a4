"""Formulas as MathML, which browsers show by themselves: no script, no font and no other server is asked for."""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)


def _visit(self: Any, node: nodes.math | nodes.math_block) -> None:  # noqa: ANN401
    is_block = isinstance(node, nodes.math_block)
    try:
        made = tex2mathml(node.astext(), as_block=is_block)
    except MathError as error:
        _log.warning("formula %r: %s", node.astext(), error, location=node)
        made = f"<code>{self.encode(node.astext())}</code>"
    self.body.append(f'<div class="formula">{made}</div>\n' if is_block else made)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_visit, None), (_visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
