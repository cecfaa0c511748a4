"""The documentation as a site: `make docs` builds it into build/docs, with every warning an error."""

import sys
from pathlib import Path

from pygments.lexers import find_lexer_class_by_name
from sphinx.application import Sphinx

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1] / "src")]

from gscnn_lightning import __version__  # noqa: E402

project = "gscnn-lightning"
author = "the authors of gscnn-lightning"
copyright = "the authors of gscnn-lightning, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "commands",
    "guides",
    "mathml",
    "measured",
    "names",
    "repository",
]
root_doc = "index"
exclude_patterns = ["_ext", "results", "notebooks/.ipynb_checkpoints", "notebooks/runs"]

# What docstrings have in single backticks is a name: a link where the site has its page, else it is only set as one.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    (r"py:obj", r".*"),
    # Annotations name what other libraries hold, and types that are private here.
    (r"py:class", r"(collections|datetime|numpy|pathlib|pytorch_lightning|timm|torch|torchmetrics|typing)\..*"),
    (
        r"py:class",
        r"Tensor|ClassTiles|gscnn_lightning\.data\..*Source|gscnn_lightning\..*\.(Labels|Output|ScenesDataset|KeptFrames|Transform|Frame|Input|FrameWindows|Coding)",
    ),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

myst_enable_extensions = ["attrs_inline", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
highlight_language = "sh"
suppress_warnings = ["misc.highlighting_failure"]  # blocks without a language hold what programs print, too
nb_execution_mode = "off"  # notebooks are committed without outputs, and are run by `make notebooks`
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "gscnn-lightning"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/gscnn-lightning/gscnn-lightning/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Notebooks are Python with lines for the shell."""
    app.add_lexer("python", find_lexer_class_by_name("ipython3"))
