"""Sphinx builds the guides and the API reference; ``make docs`` treats warnings as errors.

The source folder is the root of the repository, so that links between pages are the same here and on its host.
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
    "sphinx_design",
    "sphinxcontrib.mermaid",
    "directives",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "recipes/*/README.md",
    "benchmarks/README.md",
    "benchmarks/*/README.md",
    "examples/README.md",
    "umls_reranker/built_in/README.md",
]
exclude_patterns = [".*", "build", "dist", "runs", "shared", "umls_reranker/templates"]

# Every name in a docstring is one of the reference, or of a library that has its own.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(typing|collections|concurrent|pathlib|numpy|np|pyarrow|pa|pandas|pd|torch|transformers|fastapi|starlette|"
        r"spacy|prometheus_client|pyspark|ray)\..*",
    ),
    (r"py:(class|exc|obj)", r"[A-Z]?[a-z]+(\[.*)?|optional|Any|.*(Error|Warning|Exception)|Path|Sequence|Iterable"),
]

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
default_role = "py:name"

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4

# Only make links asks other sites.
linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost).*"]

html_theme = "furo"
html_title = f"umls_reranker {release}"
html_copy_source = False
