"""Gilda's `Grounder` over terms made of the dictionary (https://gilda.readthedocs.io).

A term a name, as `generate_terms` makes them: `normalize` of the text, status "name" for the
preferred one and "synonym" for the others. Its score weighs how exactly the strings match and the
status of the name.
"""

from peer import Candidate

ENVIRONMENT = "gilda"
PACKAGES = ("gilda",)
INPUTS = ()
DEVIATIONS = ("its disambiguation models, which are downloads for its own dictionary, are off",)


def setup(export):
    from gilda.grounder import Grounder
    from gilda.process import normalize
    from gilda.term import Term

    terms = {}
    for cui, preferred, names, _ in export.concepts():
        for name in names:
            status = "name" if name == preferred else "synonym"
            term = Term(normalize(name), name, "UMLS", cui, preferred, status, "umls")
            terms.setdefault(term.norm_text, []).append(term)
    grounder = Grounder(terms)
    grounder.gilda_disambiguators = {}

    def link(mentions):
        for mention in mentions:
            matches = grounder.ground(mention.mention)
            yield [Candidate(match.term.id, match.score, match.term.text) for match in matches]

    return link
