"""What the reference shows beside docstrings: help of commands, recipe keys, bodies of HTTP
requests.

Each directive writes Markdown from what the code declares, so that no page repeats it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]


class Generated(SphinxDirective):
    """A directive that writes Markdown, with headings."""

    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)

    def lines(self) -> Iterable[str]:
        raise NotImplementedError


class CommandHelp(Generated):
    """What ``umls-reranker NAME --help`` prints, for each command."""

    def lines(self) -> Iterable[str]:
        from umls_reranker.__main__ import GROUPS, QUICKSTART

        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        for group, names in GROUPS.items():
            yield from (f"## {group}", "")
            for name in names:
                if name == QUICKSTART:
                    continue
                command = [sys.executable, "-m", "umls_reranker", name, "--help"]
                text = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                ).stdout
                # The page breaks the lines of paragraphs.
                text = re.sub(r"(?<=\S)\n(?=\S)", " ", text.rstrip())
                yield from (
                    f"### {name}",
                    "",
                    "```{code-block} text",
                    ":class: help",
                    "",
                    text,
                    "```",
                    "",
                )


class RecipeKeys(Generated):
    """A table for each section of a recipe."""

    def lines(self) -> Iterable[str]:
        from umls_reranker.pipeline.recipe import ONLY_OPTIONS, SECTIONS
        from umls_reranker.pipeline.recipe_keys import keys_of
        from umls_reranker.training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

        for section in (*SECTIONS.values(), RerankerTrainingArguments):
            heading, _, about = section.__doc__.strip().rstrip(".").partition(": ")
            yield from (
                f"## {heading}",
                "",
                f"{about[:1].upper()}{about[1:]}." if about else "",
                "",
            )
            yield from ("| key | default | meaning |", "|---|---|---|")
            for name, key in keys_of(section).items():
                is_of_library = section is RerankerTrainingArguments and name not in OWN_FIELDS
                if name not in ONLY_OPTIONS and not is_of_library:
                    yield (
                        f"| [`{name}`]{{#key-{name}}} | {_code(key.default)} | "
                        f"{_escaped(_meaning(key))} |"
                    )
            yield ""


class RequestBodies(Generated):
    """A table of fields for each of the named models."""

    def lines(self) -> Iterable[str]:
        models = import_module("umls_reranker.doors.http.requests")
        for name in self.arguments:
            model = getattr(models, name)
            schema = model.model_json_schema()
            yield from (f"### {name}", "", _escaped(model.__doc__.split("\n\n")[0]), "")
            yield from ("| field | type | default | meaning |", "|---|---|---|---|")
            for field, about in schema["properties"].items():
                default = (
                    "required"
                    if field in schema.get("required", ())
                    else f"`{json.dumps(about['default'])}`"
                )
                yield (
                    f"| `{field}` | {_kind(about)} | {default} | "
                    f"{_escaped(about.get('description', ''))} |"
                )
            yield ""


class NameRole(PyXRefRole):
    """A name in single backticks, which need not say its module."""

    def process_link(
        self, env: Any, refnode: Any, has_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        title, target = super().process_link(env, refnode, has_title, title, target)
        refnode["reftype"], refnode["refspecific"] = "obj", True
        return title, target


def _meaning(key: Any) -> str:
    if isinstance(key.choices, Mapping):
        explained = [f"{name}: {choice.help}" for name, choice in key.choices.items()]
        return "; ".join([key.help, *explained])
    return f"{key.help} [{', '.join(key.choices)}]" if key.choices else key.help


def _code(value: Any) -> str:
    if value in (None, "", []):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{' '.join(value) if isinstance(value, list) else value}`"


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/")[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    return f"list of {_kind(schema['items'])}" if schema["type"] == "array" else schema["type"]


def _escaped(text: str) -> str:
    """Plain text as Markdown, in which only code stays marked."""
    parts = re.split(r"``?([^`]+)``?", " ".join(text.split()).replace("|", "\\|"))
    return "".join(
        f"`{part}`" if at % 2 else re.sub(r"([\\*_{}\[\]<>~$#](?!\|))", r"\\\1", part)
        for at, part in enumerate(parts)
    )


def adapt_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Make links to folders, which the host of the repository shows, links to their README, or no
    links.
    """
    folder = Path(app.srcdir, name).parent

    def page(link: re.Match[str]) -> str:
        text, path, heading = link.groups("")
        if (folder / path / "README.md").is_file():
            return f"[{text}]({path}/README.md{heading})"
        return text if (folder / path).is_dir() else link[0]

    source[0] = re.sub(r"\[([^][]+)\]\(([\w./-]+?)/?(#[\w-]+)?\)", page, source[0])
    if name == "docs/internal/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def leave_out_fields(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Fields of a named tuple are documented by its docstring."""
    return True if type(member).__name__ == "_tuplegetter" else None


def leave_out_constructor(
    app: Sphinx,
    what: str,
    name: str,
    member: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """A class whose docstring has no arguments is made by a class method, or not by users at
    all.
    """
    return ("", None) if what == "class" and "Args:" not in (member.__doc__ or "") else None


def show_types(
    app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]
) -> None:
    """The type of an attribute stands beside its name, as the types of members do."""
    attribute = 0
    for number, line in enumerate(list(lines)):
        if line.startswith(".. attribute::"):
            attribute = number
        elif line.startswith("   :type:"):
            lines.insert(attribute + 1, lines.pop(number))


def write_start_page(app: Sphinx, error: Exception | None) -> None:
    """The address of the site alone shows its first page."""
    if error is None and app.builder.format == "html":
        page = (
            '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0; '
            'url=docs/index.html">'
        )
        Path(app.outdir, "index.html").write_text(
            page + "<title>umls_reranker</title>\n", encoding="utf-8"
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_role_to_domain("py", "name", NameRole())
    app.add_directive("command-help", CommandHelp)
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("request-bodies", RequestBodies)
    app.connect("source-read", adapt_pages)
    app.connect("autodoc-skip-member", leave_out_fields)
    app.connect("autodoc-process-signature", leave_out_constructor)
    # After napoleon.
    app.connect("autodoc-process-docstring", show_types, priority=900)
    app.connect("build-finished", write_start_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
