"""Link entities in spaCy: `ent.kb_id_` is the accepted CUI, `ent._.umls` all concepts.

Needs `pip install -e ".[spacy]"` and the run that `make quickstart` makes. Put the component behind
the one that finds your entities; here a list of phrases does.

    python examples/spacy_pipeline.py
"""

import spacy

nlp = spacy.blank("en")
finder = nlp.add_pipe("entity_ruler")
finder.add_patterns(
    [
        {"label": "DISEASE", "pattern": text}
        for text in ("seizures", "kidney failure", "enlarged liver")
    ]
)
# With UMLS, also "types": {"DISEASE": "Disease or Syndrome"}, entity label -> semantic type.
# Without a type, the fallback model for `no type` decides, and a warning says so.
nlp.add_pipe("umls_reranker", config={"model": "runs/quickstart/model", "index": "runs/quickstart"})

texts = ["The girl had seizures and an enlarged liver.", "Her brother died of kidney failure."]
for doc in nlp.pipe(texts):
    for entity in doc.ents:
        top = entity._.umls[0]
        accepted = entity.kb_id_ or "abstain"
        print(
            f"{entity.text:15} {accepted:8}  {top['score']:.3f}  {top['tier']:6}  "
            f"{top['preferred_name']}"
        )
