"""The names of clusters as arrays, and batches of pairs of synonyms from near clusters."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.models.query_tokenizer import QueryTokenizer
from umls_reranker.vocab.normal_form import normal_forms

SEED = 13
MAX_TOKENS = 32
# Visits of a cluster per epoch: one for each normal form but the first, up to this.
MOST_VISITS = 4
# Of a cluster whose names are alike but for case, number and order of words.
FEW_VISITS = 0.25
# How often a pair has two normal forms, where the cluster has them.
TWO_FORMS = 0.9
NEIGHBORS = 12
# Of these, drawn for a batch with each seed.
NEAR = 3


class Names:
    """All n names, cluster by cluster.

    Attributes:
        texts: the names.
        ids: their token ids.
        form: (n,) number of each name's normal form.
        starts: (clusters + 1,) first name of each cluster.
        related: (clusters, clusters) bool, those with a normal form in common, itself included.
        visits: (clusters,) mean visits per epoch.
    """

    def __init__(self, file: Path, tokenizer) -> None:
        clusters = json.loads(file.read_text(encoding="utf-8"))
        self.texts = [name for cluster in clusters for name, _ in cluster["names"]]
        self.ids = QueryTokenizer(tokenizer, MAX_TOKENS).plain(self.texts)
        sizes = np.array([len(cluster["names"]) for cluster in clusters])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        _, self.form = np.unique(normal_forms(self.texts), return_inverse=True)
        owner = np.repeat(np.arange(len(clusters)), sizes)
        names_of = csr_array((np.ones(len(self.texts), np.float32), (owner, self.form)))
        self.related = (names_of @ names_of.T).astype(bool)
        forms = (names_of > 0).sum(axis=1)
        self.visits = np.clip(forms - 1, FEW_VISITS * (sizes > 1), MOST_VISITS)

    def seed_batches(self, size: int) -> Iterator[np.ndarray]:
        """Clusters in batches, epoch after epoch, each in an order of its own."""
        for epoch in count():
            rng = np.random.default_rng([SEED, epoch])
            visits = np.floor(self.visits + rng.random(len(self.visits))).astype(int)
            order = rng.permutation(np.repeat(np.arange(len(visits)), visits))
            for start in range(0, max(1, len(order) - size + 1), size):
                yield order[start : start + size]

    def batch(
        self, seeds: np.ndarray, neighbors: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A pair of names of each seed, and of some neighbors of each.

        Args:
            seeds: clusters.
            neighbors: those that `nearest_clusters` found.
            rng: decides all draws.

        Returns:
            (2 b,) names, the first of each pair, then the second; (b, b) bool, the pairs of related
            clusters, which are no negatives.
        """
        clusters = [*seeds]
        for near in neighbors[seeds]:
            clusters += [*rng.permutation(near[near >= 0])[:NEAR]]
        distinct = np.unique(clusters)
        pairs = np.array([self._pair(cluster, rng) for cluster in distinct])
        return pairs.T.ravel(), self.related[distinct][:, distinct].toarray()

    def _pair(self, cluster: int, rng: np.random.Generator) -> tuple[int, int]:
        start, end = self.starts[cluster : cluster + 2]
        first = int(rng.integers(start, end))
        others = np.delete(np.arange(start, end), first - start)
        if rng.random() < TWO_FORMS:
            different = others[self.form[others] != self.form[first]]
            others = different if len(different) else others
        return first, int(rng.choice(others))


def nearest_clusters(
    names: Names, encoder: BiEncoder, rng: np.random.Generator, block: int = 256
) -> np.ndarray:
    """The nearest unrelated clusters of each that has synonyms, by one name of each, at random.

    Returns:
        (clusters, `NEIGHBORS`), padded with -1.
    """
    sizes = np.diff(names.starts)
    clusters = np.flatnonzero(sizes > 1)
    shown = names.starts[clusters] + rng.integers(sizes[clusters])
    vectors = encoder.encode([names.texts[row] for row in shown], desc="mining near clusters")
    rows = torch.from_numpy(vectors).bfloat16()
    width = min(2 * NEIGHBORS, len(clusters))
    found = [(some @ rows.T).topk(width).indices.numpy() for some in rows.split(block)]
    nearest = np.full((len(sizes), NEIGHBORS), -1)
    for cluster, near in zip(clusters, clusters[np.concatenate(found)], strict=True):
        related = names.related.indices[slice(*names.related.indptr[cluster : cluster + 2])]
        unrelated = near[~np.isin(near, related)][:NEIGHBORS]
        nearest[cluster, : len(unrelated)] = unrelated
    return nearest
