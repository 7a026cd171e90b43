"""The tables of words that a model card needs."""

from ..core.json_files import read_json
from ..evaluation.render import TEMPLATES

# ``tags``, those with a cross-encoder and those of vocabularies (SAB); ``languages`` (LAT of
# MRCONSO, as the Hub writes them); ``figures`` in the metadata, with task and title; name and
# license of ``sources`` by a part of their locator; and ``example``, a pair with all that a
# template may show.
CARD_TABLES = read_json(TEMPLATES / "model_card.json")
