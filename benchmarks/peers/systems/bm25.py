"""bm25s over all names, as people write it themselves (https://bm25s.github.io): its tokenizer and defaults."""

from peer import Candidate

ENVIRONMENT = "light"
PACKAGES = ("bm25s",)
INPUTS = ()
DEVIATIONS = ()
# Names retrieved for a mention, so that 32 concepts are left.
NAMES = 100


def setup(export):
    import bm25s

    names = [(name, concept.cui) for concept in export.concepts() for name in concept.names]
    retriever = bm25s.BM25()
    retriever.index(
        bm25s.tokenize([name for name, _ in names], stopwords="en", show_progress=False), show_progress=False
    )

    def link(mentions):
        queries = bm25s.tokenize([mention.mention for mention in mentions], stopwords="en", show_progress=False)
        rows, scores = retriever.retrieve(queries, k=NAMES, show_progress=False)
        for hits in zip(rows.tolist(), scores.tolist(), strict=True):
            yield [
                Candidate(names[row][1], score, names[row][0]) for row, score in zip(*hits, strict=True) if score > 0
            ]

    return link
