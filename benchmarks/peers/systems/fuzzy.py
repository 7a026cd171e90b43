"""rapidfuzz's `process.extract` over all names, as people write it.

https://rapidfuzz.github.io
"""

from peer import Candidate

ENVIRONMENT = "light"
PACKAGES = ("rapidfuzz",)
INPUTS = ()
DEVIATIONS = (
    "scorer `ratio` in place of the default `WRatio`: on 100 dev mentions 4 more correct, "
    "22 times faster",
)
# Names retrieved per mention, enough for 32 concepts.
NAMES = 100


def setup(export):
    from rapidfuzz import fuzz, process, utils

    names = [(name, concept.cui) for concept in export.concepts() for name in concept.names]
    processed = [utils.default_process(name) for name, _ in names]

    def link(mentions):
        for mention in mentions:
            text = utils.default_process(mention.mention)
            hits = process.extract(text, processed, scorer=fuzz.ratio, limit=NAMES)
            yield [Candidate(names[row][1], score, names[row][0]) for _, score, row in hits]

    return link
