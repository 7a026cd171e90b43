"""scispaCy's `EntityLinker` over a knowledge base made of the dictionary (https://github.com/allenai/scispacy).

`EntityLinker.from_kb` with its defaults: TF-IDF of character 3-grams, the 30 nearest names, similarity above 0.7.
"""

from peer import Candidate

ENVIRONMENT = "scispacy"
PACKAGES = ("scispacy", "spacy", "nmslib-metabrainz", "scikit-learn", "scipy")
INPUTS = ()
DEVIATIONS = (
    "filter_for_definitions is off, which its documentation leaves to the use case: no concept of the dictionary has a"
    " definition, and with it nothing below 0.95 is linked",
    "its candidate generator is called and its threshold applied without the linker, which drops the names that"
    " matched and all but 5 concepts; the answer is the same",
    "abbreviations are resolved as for ours, not by its AbbreviationDetector",
)


def setup(export):
    from scispacy.linking import EntityLinker
    from scispacy.linking_utils import Entity, KnowledgeBase

    entities = [Entity(cui, name, names, types) for cui, name, names, types in export.concepts()]
    linker = EntityLinker.from_kb(KnowledgeBase(entities))
    # Its default, which `from_kb` leaves out.
    linker.candidate_generator.ann_index.setQueryTimeParams({"efSearch": 200})

    def link(mentions):
        for concepts in linker.candidate_generator([mention.mention for mention in mentions], linker.k):
            hits = [(max(zip(one.similarities, one.aliases, strict=True)), one.concept_id) for one in concepts]
            yield [Candidate(cui, score, name) for (score, name), cui in hits if score > linker.threshold]

    return link
