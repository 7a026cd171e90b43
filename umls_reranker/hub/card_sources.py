"""What the model card says of its sources: concepts and their version, corpus, base model, and their licenses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["as_text", "corpus_name", "is_hub_id", "linked_model", "source_rows"]

# What a locator contains -> what it is, and its license.
KNOWN_SOURCES = {
    "medmentions": ("MedMentions", "CC0 1.0"),
    "hp.obo": ("Human Phenotype Ontology", "HPO license: free use that names its version and source"),
    "sapbert": ("SapBERT", "Apache-2.0"),
    "all-minilm-l6-v2": ("all-MiniLM-L6-v2", "Apache-2.0"),
}
UMLS_LICENSE = "UMLS Metathesaurus License Agreement, and that of each source vocabulary"
OWN_LICENSE = "as its publisher says"


def as_text(text: str) -> str:
    """Text from data as one line of Markdown that shows just that: no heading, HTML, link or table cell."""
    line = "".join(character for character in " ".join(str(text).split()) if character.isprintable())
    if re.fullmatch(r"[\w ,:;.()/+-]*", line, re.ASCII) and not re.search(r"\b_|_\b|://|www\.", line):
        return line
    # Markdown reads nothing in code but the backtick that ends it, and a table the bar that ends its cell.
    return "`" + line.replace("`", "'").replace("|", "\\|") + "`"


def is_hub_id(model: str) -> bool:
    """Whether a base model is named by its place on the Hub, not by a folder."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model) is not None and not Path(model).is_dir()


def linked_model(model: str) -> str:
    """A base model as Markdown: a link to the Hub, or the folder's name."""
    return (
        f"[{model}](https://huggingface.co/{model})" if is_hub_id(model) else f"`{_file_name(model).replace('`', '')}`"
    )


def _file_name(locator: str) -> str:
    """The last part of a path or URL: where the data lay on someone's disk is nobody's business."""
    return Path(urlsplit(locator).path).name or locator


def _known(locator: str) -> tuple[str, str] | None:
    return next((known for part, known in KNOWN_SOURCES.items() if part in locator.lower()), None)


def corpus_name(recipe: Mapping[str, Any]) -> str:
    """What the mentions were taken from."""
    if recipe["mention_source"] == "held_out_synonyms":
        return f"held-out synonyms of {_ontology(recipe)[0]}"
    locator = recipe.get("corpus") or "corpus"
    known = _known(locator)
    return known[0] if known else _file_name(locator)


def _ontology(recipe: Mapping[str, Any]) -> tuple[str, str]:
    if recipe["concept_source"] == "rrf":
        return "UMLS Metathesaurus", UMLS_LICENSE
    locators = recipe.get("obo") or "ontology"
    locators = [locators] if isinstance(locators, str) else locators
    named = [_known(locator) or (_file_name(locator), OWN_LICENSE) for locator in locators]
    return " and ".join(name for name, _ in named), ", ".join(dict.fromkeys(terms for _, terms in named))


def _concept_rows(recipe: Mapping[str, Any], dictionary: Mapping[str, Any]) -> list[list[str]]:
    concepts, terms = _ontology(recipe)
    if recipe["concept_source"] == "rrf":
        release = dictionary.get("release") or {}
        concepts += f" {as_text(release['name'])}" if release.get("name") else ""
        if recipe.get("sources"):
            concepts += f", names from {', '.join(map(as_text, recipe['sources']))} only"
        return [[f"concepts: {concepts}", terms]]
    rows = []
    for own in dictionary.get("vocabularies") or ():
        name, terms = _known(own["file"]) or (as_text(own["id"] or own["file"]), "")
        version = f", version {as_text(own['version'])}" if own["version"] else ""
        license_ = as_text(own["license"]) if own["license"] else ""
        rows.append([f"concepts: {name}{version}", ", ".join(filter(None, [terms, license_])) or OWN_LICENSE])
    return rows or [[f"concepts: {as_text(concepts)}", terms]]


def source_rows(recipe: Mapping[str, Any], dictionary: Mapping[str, Any]) -> list[list[str]]:
    """Source and license of concepts, mentions and base model.

    Args:
        recipe: the flat recipe.
        dictionary: ``release`` or ``vocabularies`` of the concepts, where known (`sources.describe_dictionary`).
    """
    rows = _concept_rows(recipe, dictionary)
    if recipe["mention_source"] == "pubtator":
        known = _known(recipe.get("corpus") or "")
        rows.append([f"mentions: {as_text(corpus_name(recipe))}", known[1] if known else OWN_LICENSE])
    known = _known(recipe["model"])
    rows.append([f"base model: {linked_model(recipe['model'])}", known[1] if known else OWN_LICENSE])
    return rows
