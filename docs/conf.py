"""How the documentation is built: `make docs`, or `python -m sphinx -W -n docs docs/_build/html`.

Nothing is fetched, neither while building nor while reading: mathematics is set by KaTeX from `_static/katex`, notebooks
are shown with the outputs that are committed and never run. Pages that follow from other files (`reference/`,
`notebooks/`) are written by `_ext/generated.py` when a build begins; they are not committed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "minicm"
author = "The minicm authors"
copyright = "the minicm authors, MIT licence"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinxcontrib.katex", "plain_docstrings", "generated"]
exclude_patterns = ["_build", "_ext", "_static", "**.ipynb_checkpoints"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_dmath_double_inline = True  # $$ on the line after a paragraph, as notebooks have it
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the default fetches widgets from outside
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # a method that only fills in its base's is described there
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

nitpicky = True
nitpick_ignore_regex = [(r"py:class", r".*")]  # types in signatures; what a page itself refers to is checked
suppress_warnings = ["myst.header"]  # a notebook may skip a level of headings

html_theme = "furo"
html_title = "minicm"
html_static_path = ["_static"]
html_css_files = ["minicm.css"]
html_show_sphinx = False
html_copy_source = False
katex_css_path = "katex/katex.min.css"  # of the version that sphinxcontrib-katex bundles: 0.16.22
katex_prerender = False
pygments_style = "default"
pygments_dark_style = "github-dark"
