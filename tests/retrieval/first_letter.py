"""A retriever that is not part of the package, in one file."""

import numpy as np

from umls_reranker.lists.index_scores import IndexScore
from umls_reranker.retrieval.retrieval_method import RetrievalMethod
from umls_reranker.retrieval.retrievers import register_retriever


class FirstLetter(RetrievalMethod):
    name = "first_letter"
    folder = "first_letters"
    score_name = "first_letter"
    help = "concepts with a name that has the mention's first letter"

    def __init__(self, letters):
        self.letters = letters

    @classmethod
    def build(cls, sources, path):
        letters = np.zeros((len(sources.concepts), 128), bool)
        for rows, names in sources.concepts.iter_names():
            letters[rows, [ord(name[0].lower()) % 128 for name in names]] = True
        np.save(path / "letters.npy", letters)
        return {"concepts": len(letters)}

    @classmethod
    def load(cls, sources, path):
        return cls(np.load(path / "letters.npy", allow_pickle=False))

    def search(self, queries, k):
        shares = self.score(
            queries, np.arange(len(self.letters))[None].repeat(len(queries.texts), axis=0)
        )
        best = np.argsort(-shares, axis=1, kind="stable")[:, :k]
        return np.where(np.take_along_axis(shares, best, axis=1) > 0, best, -1)

    def score(self, queries, rows, owners=slice(None)):
        letters = np.array([ord(text[0].lower()) % 128 for text in queries.texts])
        return np.where(rows < 0, -np.inf, self.letters[rows, letters[owners, None]]).astype(
            np.float32
        )


register_retriever(
    FirstLetter, IndexScore("1 where a name of the concept has the mention's first letter")
)
