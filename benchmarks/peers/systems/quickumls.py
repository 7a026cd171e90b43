"""QuickUMLS over the release that the dictionary is made of.

https://github.com/Georgetown-IR-Lab/QuickUMLS

Made by its own `quickumls.install`, in lower case, and `QuickUMLS.match` of each mention, the
longest match first: of what its documentation offers, both found more on dev. All else is left at
its defaults, such as Jaccard similarity of at least 0.7. Candidates are those of its best match
within the mention.
"""

import shutil
from unittest.mock import patch

from peer import Candidate

ENVIRONMENT = "quickumls"
PACKAGES = ("quickumls", "spacy", "unqlite")
INPUTS = ()
DEVIATIONS = (
    "spacy.blank and spaCy's stop words replace en_core_web_sm and NLTK's, "
    "which are downloads: without parts of speech, matches may begin or end with a preposition "
    "or determiner that is not a stop word",
    "accepted_semtypes is off, and concepts without a type are given one, which installation "
    "requires: two thirds of the dictionary have none, but hardly any gold concept",
    "among concepts of equal similarity, those whose preferred name matches come first; "
    "its own order puts them before more similar names",
)
# The root of the semantic network, which says nothing about a concept.
ANY_TYPE = "T071"
# Smaller than the difference of any two similarities.
TIE = 1e-6


def setup(export):
    import nltk
    import spacy
    from quickumls import QuickUMLS, install
    from spacy.lang.en.stop_words import STOP_WORDS

    scratch = export.scratch("quickumls")
    shutil.rmtree(scratch)
    release = scratch / "META"
    index = scratch / "index"
    words = scratch / "corpora" / "stopwords"
    for folder in (release, index, words):
        folder.mkdir(parents=True)
    (release / "MRCONSO.RRF").symlink_to((export.umls_dir / "MRCONSO.RRF").resolve())
    types = (export.umls_dir / "MRSTY.RRF").read_text(encoding="utf-8")
    untyped = (concept.cui for concept in export.concepts() if not concept.semantic_types)
    types += "".join(f"{cui}|{ANY_TYPE}||||\n" for cui in untyped)
    (release / "MRSTY.RRF").write_text(types, encoding="utf-8")
    (words / "english").write_text("\n".join(sorted(STOP_WORDS)), encoding="utf-8")
    nltk.data.path.insert(0, str(scratch))
    with patch("spacy.load", lambda _: spacy.blank("en")):
        with patch("sys.argv", ["install", "--lowercase", str(release), str(index)]):
            install.main()
        matcher = QuickUMLS(str(index), overlapping_criteria="length", accepted_semtypes=None)

    def link(mentions):
        for mention in mentions:
            for best in matcher.match(mention.mention)[:1] or [[]]:
                yield [
                    Candidate(hit["cui"], hit["similarity"] + TIE * hit["preferred"], hit["term"])
                    for hit in best
                ]

    return link
