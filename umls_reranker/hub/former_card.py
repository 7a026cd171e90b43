"""What people wrote into a card on the Hub, which stays when a version replaces it."""

import yaml
from huggingface_hub import (
    ModelCard,
)
from huggingface_hub.utils import yaml_dump

from ..core.errors import UserError
from .card_sources import one_or_several
from .file_names import (
    CARD,
)

# Around the part of a card that each version writes anew.
BEGIN = "<!-- umls-reranker:begin (each version replaces the text from here to the end mark) -->"
END = "<!-- umls-reranker:end -->"
# Keys of the metadata that each version writes anew.
OWN_METADATA = (
    "base_model",
    "library_name",
    "pipeline_tag",
    "metrics",
    "model_name",
    "model-index",
)


def with_former(card: str, former: str) -> str:
    """A card with what people wrote into the former version's: text around ours, and metadata.

    Raises:
        UserError: the former card's metadata cannot be read.
    """
    new = ModelCard(card)
    try:
        old = ModelCard(former, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError):
        raise UserError(
            f"{CARD} on the Hub begins with metadata that are not a YAML mapping; edit it there"
        ) from None
    theirs = {key: value for key, value in old.data.to_dict().items() if key not in OWN_METADATA}
    ours = new.data.to_dict()
    # The order stays, so our cards do not change.
    data = ours | theirs
    for key in ("tags", "datasets"):
        values = [*one_or_several(ours.get(key)), *one_or_several(theirs.get(key))]
        if values:
            data[key] = list(dict.fromkeys(values))
    if "license" in theirs:
        # A license, its name and its link belong together.
        for key in {"license_name", "license_link"} - theirs.keys():
            data.pop(key, None)
    text_above, _, from_ours_on = old.text.partition(BEGIN)
    _, _, text_below = from_ours_on.partition(END)
    front_matter = f"---\n{yaml_dump(data, sort_keys=False)}---"
    texts = [text.strip() for text in (text_above, new.text, text_below) if text.strip()]
    return "\n\n".join([front_matter, *texts]) + "\n"
