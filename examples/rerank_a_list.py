"""Rank candidates that you already have, and accept an answer or abstain.

Runs at once: the model built-in comes with the package. A folder or Hub id of your own takes its
place.
Its scores are not calibrated for your lists: `umls-reranker calibrate built-in
--lists` does that.

    python examples/rerank_a_list.py

prints

    renal failure -> Kidney Failure (C0035078), 0.540, medium
    heart attack -> Myocardial Infarction (C0027051), 0.676, medium
    heart trouble -> abstain: Heart has only 0.125
"""

from umls_reranker import UMLSReranker

HEART = {"C0018801": "Heart Failure", "C0027051": "Myocardial Infarction", "C0018787": "Heart"}
CANDIDATES = {
    "renal failure": {
        "C0022660": "Kidney Failure, Acute",
        "C0022658": "Kidney Diseases",
        "C0035078": "Kidney Failure",
    },
    "heart attack": HEART,
    "heart trouble": HEART,
}

reranker = UMLSReranker.from_pretrained("built-in")
for mention, names in CANDIDATES.items():
    candidates = [{"cui": cui, "name": name} for cui, name in names.items()]
    # Ranked, top candidate first; each has the calibrated probability that it is the mention's
    # concept.
    top = reranker.rerank(mention, candidates, entity_type="Disease or Syndrome")[0]
    if top.accepted:
        print(f"{mention} -> {top.name} ({top.cui}), {top.score:.3f}, {top.tier}")
    else:
        print(f"{mention} -> abstain: {top.name} has only {top.score:.3f}")
