"""scispaCy's `EntityLinker` over a knowledge base of the dictionary.

https://github.com/allenai/scispacy

`EntityLinker` with its defaults: TF-IDF of character 3-grams, the 30 nearest names, similarity
above 0.7.
"""

from peer import Candidate

ENVIRONMENT = "scispacy"
PACKAGES = ("scispacy", "spacy", "nmslib-metabrainz", "scikit-learn", "scipy")
INPUTS = ()
DEVIATIONS = (
    "filter_for_definitions is off, which its documentation leaves to the use case: "
    "no concept of the dictionary has a definition, so nothing below 0.95 would be linked",
    "its candidate generator is called and its threshold applied without the linker, "
    "which drops the names that matched and all but 5 concepts; the answer is the same",
    "abbreviations are expanded as for our system, not by its AbbreviationDetector",
)


def setup(export):
    from scispacy.candidate_generation import (
        CandidateGenerator,
        LinkerPaths,
        create_tfidf_ann_index,
    )
    from scispacy.linking import EntityLinker
    from scispacy.linking_utils import Entity, KnowledgeBase

    dictionary = KnowledgeBase(
        [Entity(cui, name, names, types) for cui, name, names, types in export.concepts()]
    )
    folder = export.scratch("scispacy")
    index = LinkerPaths.from_directory(folder)
    if not index.is_locally_cached():
        create_tfidf_ann_index(str(folder), dictionary)
    aliases, vectorizer, neighbors = index.load()
    linker = EntityLinker(
        candidate_generator=CandidateGenerator(neighbors, vectorizer, aliases, dictionary)
    )

    def link(mentions):
        for concepts in linker.candidate_generator(
            [mention.mention for mention in mentions], linker.k
        ):
            hits = [
                (max(zip(one.similarities, one.aliases, strict=True)), one.concept_id)
                for one in concepts
            ]
            yield [
                Candidate(cui, score, name)
                for (score, name), cui in hits
                if score > linker.threshold
            ]

    return link
