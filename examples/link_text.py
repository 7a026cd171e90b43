"""Link the mentions of a text to concepts of a dictionary, without training, and print the ranking.

Needs an index: umls-reranker index META my_index. A model that was calibrated with it also says
which answers to trust: docs/linking.md.

    python examples/link_text.py my_index [MODEL]
"""

import sys

from umls_reranker import ConceptLinker

TEXT = "The girl had seizures and status epilepticus (SE). SE recurred; no kidney failure."
MENTIONS = ("seizures", "SE", "kidney failure")

index, model = [*sys.argv[1:], "built-in"][:2]
linker = ConceptLinker.from_pretrained(model, index)
linked = linker.link_batch(MENTIONS, [TEXT] * len(MENTIONS))
for mention, concepts in zip(MENTIONS, linked, strict=True):
    top = concepts[0]
    # Without a calibrated model there is no tier: the scores order concepts and promise nothing.
    print(f"{mention:15} {top.score:.3f}  {top.tier or '-':6}  {top.cui:8}  {top.preferred_name}")
