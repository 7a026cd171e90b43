"""bm25s over all names, with its stemmer and stop words, as people write it.

https://bm25s.github.io
"""

from peer import Candidate

ENVIRONMENT = "light"
PACKAGES = ("bm25s", "PyStemmer")
INPUTS = ()
DEVIATIONS = ()
# Names retrieved per mention, enough for 32 concepts.
NAMES = 100


def setup(export):
    import bm25s
    import Stemmer

    def tokenize(texts):
        return bm25s.tokenize(
            texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
        )

    names = [(name, concept.cui) for concept in export.concepts() for name in concept.names]
    retriever = bm25s.BM25()
    retriever.index(tokenize([name for name, _ in names]), show_progress=False)

    def link(mentions):
        queries = tokenize([mention.mention for mention in mentions])
        rows, scores = retriever.retrieve(queries, k=NAMES, show_progress=False)
        for hits in zip(rows.tolist(), scores.tolist(), strict=True):
            yield [
                Candidate(names[row][1], score, names[row][0])
                for row, score in zip(*hits, strict=True)
                if score > 0
            ]

    return link
