"""The spaCy component ``umls_reranker``: ranked concepts of entities, in ``ent._.umls``.

    config = {"model": "org/umls-reranker", "revision": "v1", "index": "/srv/index"}
    nlp.add_pipe("umls_reranker", config=config)
    nlp.add_pipe("umls_reranker", config={"model": "my_model", "candidates": "sapbert"})

spaCy finds it through the entry point ``spacy_factories``. It reads the entities in ``doc.ents``,
which an earlier component must set. Their candidates come from an index, or are those that an
earlier component has written, with its scores, to an extension of the entity: here
``ent._.sapbert``. A saved pipeline holds only the settings; loading it opens model and index again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from ..core.errors import UserError, warn_caller
from ..corpora.surrounding_text import text_around
from ..linking.linker import ConceptLinker
from ..lists.columns import MAX_MENTION_CHARS
from ..serving.ranked_candidate import RankedCandidate
from ..serving.reranker import UMLSReranker
from ..vocab.types import TypeHierarchy

# Ranks the candidates of n entities, given the text of the Doc and the semantic type of each.
Rank: TypeAlias = (
    "Callable[[Sequence[Span], list[str], list[str | None]], Sequence[Sequence[RankedCandidate]]]"
)


def rank_indexed(
    linker: ConceptLinker, entities: Sequence[Span], texts: list[str], types: list[str | None]
) -> Sequence[Sequence[RankedCandidate]]:
    """Rank the concepts that an index finds for entities."""
    starts = [entity.start_char for entity in entities]
    return linker.link_batch([entity.text for entity in entities], texts, starts, types)


def rank_listed(
    reranker: UMLSReranker,
    extension: str,
    entities: Sequence[Span],
    texts: list[str],
    types: list[str | None],
) -> Sequence[Sequence[RankedCandidate]]:
    """Rank the candidates that entities have in an extension, as for `UMLSReranker.rerank`."""
    if not Span.has_extension(extension):
        raise UserError(
            f"no component has set entity._.{extension}, the candidates to rank; "
            f"register it with Span.set_extension({extension!r}, default=[]) "
            "and fill it before umls_reranker"
        )
    sides = [
        text_around(text, entity.start_char, entity.end_char)
        for entity, text in zip(entities, texts, strict=True)
    ]
    return reranker.rerank_batch(
        entities=[entity.text for entity in entities],
        candidates=[entity._.get(extension) or [] for entity in entities],
        entity_types=types,
        lefts=[left for left, _ in sides],
        rights=[right for _, right in sides],
    )


class EntityLinks:
    """Links the entities of Docs.

    ``ent._.umls`` becomes a list of dicts, the top candidate first: `LinkedConcept.as_row` of an
    index's concepts, `RankedCandidate.as_row` of listed candidates. They are plain values, so a Doc
    can be saved and sent to other processes. The CUI of the accepted concept becomes the entity's
    ``kb_id_``. If no concept is accepted, ``kb_id_`` becomes empty, even if an earlier component
    set it.

    Args:
        rank: finds and ranks the candidates of entities.
        hierarchy: the types that the model knows.
        types: entity label -> semantic type of the model (name or id). A label without an entry is
            used as a type if the model knows it; otherwise the mention has no type.
        top: number of concepts kept per entity.
    """

    def __init__(
        self, rank: Rank, hierarchy: TypeHierarchy, types: Mapping[str, str], top: int
    ) -> None:
        self.rank = rank
        self.hierarchy = hierarchy
        self.types = dict(types)
        self.top = top
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
        # A Doc joins its text from its tokens on every access.
        texts = {id(doc): doc.text for doc in docs if doc.ents}
        entities = [entity for doc in docs for entity in doc.ents]
        filled = [entity for entity in entities if not entity.text.isspace()]
        named = [entity for entity in filled if len(entity.text) <= MAX_MENTION_CHARS]
        if too_long := len(filled) - len(named):
            warn_caller(
                f"{too_long} entities are not linked: a mention has at most "
                f"{MAX_MENTION_CHARS:,} characters"
            )
        ranked = self.rank(
            named,
            [texts[id(entity.doc)] for entity in named],
            [self._type(entity.label_) for entity in named],
        )
        for entity in entities:
            _set_link(entity, [], "")
        for entity, concepts in zip(named, ranked, strict=True):
            rows = [concept.as_row() for concept in concepts[: self.top]]
            accepted_cui = concepts[0].cui if concepts and concepts[0].accepted else None
            _set_link(entity, rows, accepted_cui or "")

    def _type(self, label: str) -> str | None:
        return self.types[label] if label in self.types else self.hierarchy.resolve(label)


def _set_link(entity: Span, rows: list[dict], cui: str) -> None:
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
        "candidates": None,
        "revision": None,
        "device": "auto",
        "dtype": "auto",
        "types": {},
        "top": 5,
    },
)
def make_component(  # noqa: PLR0913 (spaCy passes its configuration by name)
    nlp: Language,
    name: str,
    model: str | None,
    index: str | None,
    candidates: str | None,
    revision: str | None,
    device: str,
    dtype: str,
    types: dict[str, str],
    top: int,
) -> EntityLinks:
    """Make the component for ``nlp.add_pipe("umls_reranker", config={...})``.

    For each entity, ``ent._.umls`` becomes a list of dicts, the top candidate first:
    `LinkedConcept.as_row` of the concepts of an index, or `RankedCandidate.as_row` of listed
    candidates. The CUI of the accepted concept becomes the entity's ``kb_id_``. If no concept is
    accepted, ``kb_id_`` becomes empty, even if an earlier component set it.

    Args:
        nlp: the pipeline; spaCy sets it.
        name: name of the component; spaCy sets it.
        model: folder or Hub id of the model.
        index: index folder, as for `ConceptLinker.from_pretrained`.
        candidates: in place of ``index``, the extension of entities that holds their candidates.
        revision: tag, branch or commit on the Hub.
        device: as for `UMLSReranker.from_pretrained`.
        dtype: as for `UMLSReranker.from_pretrained`.
        types: entity label -> semantic type of the model (name or id). A label without an entry is
            used as a type if the model knows it; otherwise the mention has no type.
        top: number of concepts kept per entity.

    Raises:
        UserError: ``model`` is not set, or not exactly one of ``index`` and ``candidates`` is; or
            one cannot be opened.
    """
    if not model or bool(index) == bool(candidates):
        raise UserError(
            f"{name}: in the component's config, set model (folder or Hub id), "
            "and either index (folder) or candidates (the entity extension that holds them)"
        )
    rank: Rank
    if index:
        linker = ConceptLinker.from_pretrained(model, index, revision, device=device, dtype=dtype)
        reranker = linker.reranker
        rank = partial(rank_indexed, linker)
    else:
        reranker = UMLSReranker.from_pretrained(model, revision, device, dtype)
        rank = partial(rank_listed, reranker, candidates or "")
    return EntityLinks(rank, reranker.thresholds.hierarchy, types, top)
