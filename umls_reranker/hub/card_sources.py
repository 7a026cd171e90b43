"""What a model was made from: sources with their licenses, and datasets of the Hub."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..models.hub_calls import HUB_DATASET
from .card_tables import CARD_TABLES


class LicensedSource(NamedTuple):
    """What something was made from, and its license in words."""

    name: str
    terms: str


# Terms of a source that no table of ours knows.
OWN_LICENSE = "set by its publisher"


class OfficialDataset(NamedTuple):
    """A release of a corpus on the Hub, whose results can be compared.

    Attributes:
        id: its id on the Hub.
        variant: what the ids of its tasks begin with.
        test_documents: name of the file that lists the documents of its test split.
    """

    id: str
    variant: str
    test_documents: str


MEDMENTIONS = "bigbio/medmentions"
MEDMENTIONS_FOLDER = re.compile(r"(^|/)medmentions[^/]*/", re.IGNORECASE)
MEDMENTIONS_TEST = "corpus_pubtator_pmids_test.txt"
# Mentions of a full release, which `prepare_data` has counted -> the release.
OFFICIAL_DATASETS = {
    352_496: OfficialDataset(MEDMENTIONS, "full", MEDMENTIONS_TEST),
    203_282: OfficialDataset(MEDMENTIONS, "st21pv", MEDMENTIONS_TEST),
}


def licensed_source(locators: str | Iterable[str]) -> LicensedSource:
    """Names and licenses of what is at one or several locators, each once."""
    sources = [_source_at(locator) for locator in one_or_several(locators)]
    names = dict.fromkeys(source.name for source in sources)
    terms = dict.fromkeys(source.terms for source in sources)
    return LicensedSource(" and ".join(names), ", ".join(terms))


def _source_at(locator: str) -> LicensedSource:
    """Name and license of what is at a locator; of one that is not known, the file's name."""
    for part, name_and_terms in CARD_TABLES["sources"].items():
        if part in locator.lower():
            return LicensedSource(*name_and_terms)
    return LicensedSource(file_name_of(locator), OWN_LICENSE)


def corpus_datasets(recipe: Mapping[str, Any]) -> list[str]:
    """Ids on the Hub of the corpora, as far as they are known."""
    ids = []
    for locator in one_or_several(recipe.get("corpus")):
        on_hub = HUB_DATASET.match(locator)
        if on_hub:
            ids.append(on_hub["repo"])
        elif MEDMENTIONS_FOLDER.search(locator):
            ids.append(MEDMENTIONS)
    return [*dict.fromkeys(ids)]


def file_name_of(locator: str) -> str:
    """The last part of a path or URL: paths on someone's disk are private."""
    return Path(urlsplit(locator).path).name or locator


def one_or_several(value: str | Iterable[str] | None) -> list[str]:
    """One or several texts as a list."""
    return [value] if isinstance(value, str) else [*(value or ())]
