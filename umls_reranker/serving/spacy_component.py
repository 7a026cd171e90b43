"""The spaCy component ``umls_reranker``: ranked concepts for the entities of a Doc, in ``ent._.umls``.

    nlp.add_pipe("umls_reranker", config={"model": "org/umls-reranker", "revision": "v1", "index": "/srv/index"})

spaCy finds it through the entry point ``spacy_factories``. It reads the entities in ``doc.ents``, which an earlier
component must set. A saved pipeline holds only the settings; loading it opens the same model and index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from ..core.errors import UserError
from .linker import ConceptLinker


class EntityLinks:
    """Links the entities of Docs.

    ``ent._.umls`` becomes a list of dicts, best first, `LinkedConcept.as_row`. They are plain values, so a
    Doc can be saved and sent to other processes. The CUI of the accepted concept becomes the entity's ``kb_id_``. If
    none is accepted, ``kb_id_`` becomes empty, even if an earlier component set it.

    Args:
        linker: links the entities.
        types: entity label -> semantic type of the model (name or id). A label without entry is used as a type if the
            model knows it; else there is no type.
        top: number of concepts kept per entity.
    """

    def __init__(self, linker: ConceptLinker, types: Mapping[str, str], top: int) -> None:
        self.linker, self.types, self.top = linker, dict(types), top
        if not Span.has_extension("umls"):
            Span.set_extension("umls", default=[])

    def __call__(self, doc: Doc) -> Doc:
        """Link the entities of one Doc."""
        self._link([doc])
        return doc

    def pipe(self, docs: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Link the entities of `batch_size` Docs at a time."""
        for batch in minibatch(docs, size=batch_size):
            self._link(batch)
            yield from batch

    def _link(self, docs: list[Doc]) -> None:
        # A Doc joins its text from its tokens each time it is read.
        texts = {id(doc): doc.text for doc in docs if doc.ents}
        entities = [entity for doc in docs for entity in doc.ents]
        for entity in entities:
            _write(entity, [], "")
        entities = [entity for entity in entities if not entity.text.isspace()]
        linked = self.linker.link_batch(
            [entity.text for entity in entities],
            [texts[id(entity.doc)] for entity in entities],
            [entity.start_char for entity in entities],
            [self._type(entity.label_) for entity in entities],
        )
        for entity, concepts in zip(entities, linked, strict=True):
            rows = [concept.as_row() for concept in concepts[: self.top]]
            accepted_cui = concepts[0].cui if concepts and concepts[0].accepted else None
            _write(entity, rows, accepted_cui or "")

    def _type(self, label: str) -> str | None:
        if label in self.types:
            return self.types[label]
        return self.linker.reranker.thresholds.hierarchy.resolve(label)


def _write(entity: Span, rows: list[dict], cui: str) -> None:
    entity._.umls = rows
    for token in entity:
        token.ent_kb_id_ = cui


@Language.factory(
    "umls_reranker",
    assigns=["span._.umls", "token.ent_kb_id"],
    requires=["doc.ents"],
    default_config={
        "model": None,
        "index": None,
        "revision": None,
        "device": "auto",
        "dtype": "auto",
        "types": {},
        "top": 5,
    },
)
def make_component(
    nlp: Language,
    name: str,
    model: str | None,
    index: str | None,
    revision: str | None,
    device: str,
    dtype: str,
    types: dict[str, str],
    top: int,
) -> EntityLinks:
    """Open model and index.

    Args:
        nlp, name: of the pipeline and the component.
        model, revision, index, device, dtype: as ``id_or_path``, ``revision``, ``index``, ``device`` and ``dtype``
            of `ConceptLinker.from_pretrained`.
        types, top: as for `EntityLinks`.

    Raises:
        UserError: `model` or `index` is not set, or cannot be opened.
    """
    if model is None or index is None:
        raise UserError(f"{name}: set model (folder or Hub id) and index (folder) in the component's config")
    linker = ConceptLinker.from_pretrained(model, index, revision, device=device, dtype=dtype)
    return EntityLinks(linker, types, top)
