"""Link the mentions of a text to concepts of a dictionary, and say which links to trust.

Needs the run that `make quickstart` (or `umls-reranker quickstart`) makes on open data.

    python examples/link_text.py
"""

from umls_reranker import ConceptLinker

TEXT = "The girl had seizures and an enlarged liver. Her brother died of kidney failure."
MENTIONS = ("seizures", "enlarged liver", "kidney failure")

linker = ConceptLinker.from_run("runs/quickstart")
starts = [TEXT.index(mention) for mention in MENTIONS]
# Without their semantic types, the fallback model for `no type` decides, and a warning says so.
linked = linker.link_batch(MENTIONS, [TEXT] * len(MENTIONS), starts)
for mention, concepts in zip(MENTIONS, linked, strict=True):
    top = concepts[0]
    # high: of all mentions in this tier, 90 % are certified to be correct. medium is accepted; low
    # and reject are not.
    decision = top.cui if top.accepted else "abstain"
    print(f"{mention:15} {top.score:.3f}  {top.tier:6}  {decision:8}  {top.preferred_name}")
