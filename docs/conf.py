"""Sphinx builds the guides and the API reference; ``make docs`` treats warnings as errors.

The source folder is the root of the repository, so that links between pages are the same here and
on its host.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
# The package is documented as it is in this checkout; directives.py lies next to this file.
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from umls_reranker import __version__  # noqa: E402

project = "umls_reranker"
author = "The umls_reranker developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "directives",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "recipes/*/README.md",
    "benchmarks/*.md",
    "benchmarks/*/README.md",
    "examples/README.md",
    "umls_reranker/built_in/README.md",
    "umls_reranker/built_in_fast/README.md",
]
exclude_patterns = [".*", "build", "dist", "runs", "umls_reranker/templates"]

# Every name in a docstring is one of the reference, or of a library that has its own.
nitpicky = True
LIBRARIES = (
    "builtins|collections|concurrent|datasets|fastapi|np|numpy|pa|pandas|pathlib|pd|"
    "prometheus_client|pyarrow|spacy|transformers|typing"
)
PLAIN = (
    "bool|bytes|dict|float|int|list|object|str|tuple|Any|Path|TextIO|None|[A-Z]\\w*Error|"
    "UserWarning"
)
nitpick_ignore_regex = [(r"py:(class|exc|obj|data)", rf"(({LIBRARIES})\..*|{PLAIN})")]
# Types of what users only pass on.
nitpick_ignore = [
    ("py:class", "Reference"),
    ("py:class", "umls_reranker.doors.spacy_component.EntityLinks"),
    ("py:class", "umls_reranker.lists.rows.Rows"),
    ("py:class", "umls_reranker.models.pair_template.PairTemplate"),
    ("py:class", "umls_reranker.training.pair_dataset.TokenizedPairs"),
    ("py:class", "PairTemplate"),
    ("py:class", "PreTrainedModel"),
    ("py:class", "TrainingArguments"),
]

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
default_role = "py:name"

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4

# The notes for developers, and recipes that point to another page, are reached by links alone.
suppress_warnings = ["toc.not_included"]

# Only make links asks other sites.
linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost).*"]

html_theme = "furo"
html_title = f"umls_reranker {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
