"""`UMLSReranker`: candidates in, ranked candidates with calibrated scores, margins, tiers and decisions out."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..calibration.choice import list_owner
from ..calibration.decisions import RankedCandidate
from ..calibration.evidence import RETRIEVAL_EVIDENCE, Calibration, ScoredLists, type_fits
from ..calibration.inputs import given_inputs
from ..calibration.thresholds import TIERS, ThresholdTable, TypeThreshold
from ..core.arrays import list_offsets
from ..core.errors import UserError
from ..core.files import read_json
from ..data.semantic_types import UNKNOWN_TYPE
from ..hub.download import download
from ..hub.model_folder import calibration_files, save_copy, verify_parts
from ..hub.publish import publish
from ..models.cross_encoder import PairScorer
from ..models.template import PairTemplate
from .monitoring.monitor import Monitor

__all__ = ["UMLSReranker"]

# Unknown types that a warning names.
NAMED_TYPES = 3
# Different ones about unknown types, in the life of an instance.
MOST_WARNINGS = 100


class UMLSReranker:
    """A cross-encoder with its calibrator and thresholds.

    Make one with `from_pretrained`; an instance may be used from several threads. Its ``monitor``
    (`monitoring.Monitor`) sees every result.

    >>> reranker = UMLSReranker.from_pretrained("org/sapbert-umls-reranker", revision="v1")  # doctest: +SKIP
    >>> best = reranker.rerank("cold", ["Common Cold", "Cold Temperature"])[0]  # doctest: +SKIP
    >>> best.name, best.tier, best.accepted  # doctest: +SKIP
    ('Common Cold', 'medium', True)
    """

    def __init__(
        self,
        scorer: PairScorer,
        calibration: Calibration,
        thresholds: ThresholdTable,
        folder: Path,
        info: dict[str, Any],
        accept_tier: str = "medium",
    ) -> None:
        if accept_tier not in TIERS[:2]:
            raise UserError(f"accept_tier: {accept_tier!r} is unknown; choose from {', '.join(TIERS[:2])}")
        self.accept_tier = accept_tier
        self.scorer = scorer
        self.calibration = calibration
        self.thresholds = thresholds
        self.folder = folder
        self.info = info
        self.monitor = Monitor.of_model(folder)
        self._named_types: set[str] = set()

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        backend: str = "torch",
        token_budget: int | None = None,
        accept_tier: str = "medium",
    ) -> UMLSReranker:
        """Load a reranker from the Hub or a local folder.

        Args:
            id_or_path: Hub repo id, or a folder as `save_pretrained` writes it.
            revision: tag, branch or commit on the Hub; pin a tag in production.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default a GPU when there is one.
            dtype: ``float32``, ``bfloat16`` or ``float16``; by default bfloat16 where the hardware computes in it,
                else float32.
            token: Hub token for a private repo; by default the one of ``hf auth login`` or ``HF_TOKEN``.
            cache_dir: where downloads are kept; by default the Hub's cache.
            backend: ``torch``, ``torch_compile``, or a network made by umls-reranker export: ``onnx``, ``onnx_int8``,
                ``openvino``, ``openvino_int8``; it comes with a calibrator of its own where its scores differ.
            token_budget: most tokens of one forward pass; by default 1,024 on a processor, 65,536 on a GPU.
            accept_tier: lowest tier whose first candidate is accepted: ``medium``, as the model says, or ``high``,
                only what its certificate covers.

        Raises:
            UserError: not found, no access, no network, or a part that is missing, damaged, changed or from another
                version (`model_folder.verify_parts`).
        """
        folder = download(str(id_or_path), revision, token=token, cache_dir=cache_dir, backend=backend)
        info = verify_parts(folder, backend)
        template = PairTemplate.from_dict(info.get("template"))
        calibrator, thresholds = calibration_files(folder, backend)
        return cls(
            PairScorer.from_folder(folder, template, device, dtype, backend, token_budget),
            Calibration.load(read_json(calibrator), folder),
            ThresholdTable.from_dict(read_json(thresholds)),
            folder,
            info,
            accept_tier,
        )

    def rerank(
        self,
        entity: str,
        candidates: Sequence[Any],
        entity_type: str | Sequence[str] | None = None,
        left: str = "",
        right: str = "",
    ) -> list[RankedCandidate]:
        """Rank the candidates of one mention, best first.

        Args:
            entity: the mention's text.
            candidates: names, mappings with ``name`` (and ``cui``), or objects with ``.name`` (and ``.cui``), in
                retrieval order, which breaks ties. Duplicates stay in the list with equal scores. May be empty.
                ``preferred_name`` and ``definition`` are read by models whose template shows them; a definition is ""
                where the dictionary has none, and None where it is not known.
                ``retrieval_score``, ``context_score`` and ``lexical_score`` are the scores of the retrievers that the
                model was calibrated with; a list that lacks one it weighs, or has one far outside of what calibration
                saw, is scored without any of them.
                ``semantic_types`` (ids or names, [] where the dictionary has none) are those of the concept, which may
                contradict the mention's.
            entity_type: the mention's semantic type (name or id), or several. Unknown ones use the default thresholds
                with one warning a call; None and MedMentions' ``UnknownType`` use them silently.
            left, right: text around the mention, used by models trained with context.

        Returns:
            One `RankedCandidate` for each candidate.

        Raises:
            TypeError: the mention, its context or a type is not text, the candidates are no list, or one of them has
                no text for a name or something other than text, types or a number elsewhere; names its position.
            ValueError: the mention is blank.

        Warns:
            UserWarning: types that the model does not know; inputs that it reads and that are missing, by name.
        """
        return self.rerank_batch([entity], [candidates], [entity_type], [left], [right])[0]

    def rerank_batch(
        self,
        entities: Sequence[str],
        candidates: Sequence[Sequence[Any]],
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | None = None,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of n mentions; the arguments are those of `rerank`, n of each.

        Args:
            desc: title of a progress bar; None shows none.

        Raises:
            TypeError, ValueError: as `rerank`, naming the mention's position where there are several.
        """
        count = len(entities)
        types = [None] * count if entity_types is None else list(entity_types)
        contexts = [[""] * count if side is None else list(side) for side in (lefts, rights)]
        if any(len(column) != count for column in (candidates, types, *contexts)):
            raise ValueError(f"{count} entities need as many candidate lists, types and contexts")
        template = self.scorer.template
        rows = zip(entities, candidates, types, *contexts, strict=True)
        read = [_read_mention(row if count > 1 else None, template, *given) for row, given in enumerate(rows)]
        candidates, parsed, types = ([mention[part] for mention in read] for part in range(3))
        sizes = [len(items) for items in parsed]
        types = self._resolve_types(types)
        hierarchy = self.thresholds.hierarchy
        shown = [template.mention_text(text, kinds, hierarchy) for text, kinds in zip(entities, types, strict=True)]
        scores = self.scorer.score(
            [text for text, size in zip(shown, sizes, strict=True) for _ in range(size)],
            [item.text for items in parsed for item in items],
            *([text for text, size in zip(side, sizes, strict=True) for _ in range(size)] for side in contexts),
            desc=desc,
        )
        offsets = list_offsets(sizes)
        candidate_types = [self._known_types(item.types) for items in parsed for item in items]
        decided = self.calibration(
            ScoredLists(
                scores.logits,
                entities,
                [item.name for items in parsed for item in items],
                [item.cui for items in parsed for item in items],
                offsets,
                {
                    name: np.array([item.retrieval[place] for items in parsed for item in items], np.float64)
                    for place, name in enumerate(RETRIEVAL_EVIDENCE)
                },
                types,
                type_fits(hierarchy, types, candidate_types, list_owner(offsets)),
                template.reads,
                given_inputs(
                    np.array([item.is_preferred_known for items in parsed for item in items], bool),
                    np.array([item.is_definition_known for items in parsed for item in items], bool),
                    *contexts,
                    offsets,
                ),
            )
        )
        self._warn_of_missing(decided.missing, np.array(sizes) > 0)
        ends = np.cumsum(sizes)
        results = []
        for row, (end, size) in enumerate(zip(ends, sizes, strict=True)):
            part = slice(end - size, end)
            type_ids = types[row]
            thresholds = self.thresholds.for_type(type_ids, bool(decided.complete[row]))
            order = np.argsort(-decided.log_odds[part], kind="stable")
            ranked = self._rank(
                candidates[row], parsed[row], scores.logits[part], decided.probabilities[part], order, thresholds
            )
            best = ranked[0] if ranked else None
            top = best and (best.cross_encoder_score, best.margin, best.tier, best.accepted)
            self.monitor.record(type_ids, size, top)
            results.append(ranked)
        self.monitor.add_truncated(scores.truncated)
        return results

    def get_confidence_tier(self, score: float, entity_type: str | Sequence[str] | None = None) -> str:
        """Tier of a calibrated probability: ``high``, ``medium``, ``low`` or ``reject``."""
        return self.thresholds.for_type(self._resolve_types([_type_names(entity_type)])[0]).tier(float(score))

    def get_statistics(self) -> dict[str, Any]:
        """Figures over everything this instance ranked so far, in all and per semantic type (`Monitor.totals`)."""
        return self.monitor.totals()

    def reset_statistics(self) -> None:
        """Start the figures anew."""
        self.monitor.reset()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write all parts to `folder`, which then loads with `from_pretrained`; other files there stay.

        Raises:
            UserError: `folder` cannot be written, or holds another kind of model.
        """
        return save_copy(self.folder, Path(folder))

    def push_to_hub(self, repo_id: str, tag: str, *, private: bool = True, token: str | None = None) -> str:
        """Publish all parts as one commit and one tag (`publish`); returns the commit's URL."""
        return publish(self.folder, repo_id, tag, private=private, token=token)

    def _rank(
        self,
        candidates: Sequence[Any],
        parsed: list[_Parsed],
        logits: np.ndarray,
        probabilities: np.ndarray,
        order: np.ndarray,
        thresholds: TypeThreshold,
    ) -> list[RankedCandidate]:
        best_of_concept: dict[str, float] = {}
        for item, score in zip(parsed, probabilities, strict=True):
            best_of_concept[item.concept] = max(best_of_concept.get(item.concept, 0.0), float(score))
        leading = sorted(best_of_concept, key=best_of_concept.__getitem__, reverse=True)[:2]
        accepted = TIERS[: TIERS.index(self.accept_tier) + 1]
        ranked = []
        for rank, position in enumerate(order, start=1):
            item, score = parsed[position], float(probabilities[position])
            rival = next((best_of_concept[concept] for concept in leading if concept != item.concept), 0.0)
            ranked.append(
                RankedCandidate(
                    candidates[position],
                    item.name,
                    item.cui,
                    rank,
                    float(logits[position]),
                    score,
                    score - rival,
                    tier := thresholds.tier(score),
                    rank == 1 and tier in accepted,
                )
            )
        return ranked

    def _known_types(self, types: Sequence[str] | None) -> list[str] | None:
        """Ids of a candidate's types; those that the model does not know say nothing."""
        if types is None:
            return None
        ids = map(self.thresholds.hierarchy.resolve, types)
        return [type_id for type_id in ids if type_id is not None]

    def _warn_of_missing(self, missing: Mapping[str, np.ndarray], asked: np.ndarray) -> None:
        """One warning that names what any of the mentions with candidates came without."""
        bounds = {f"{name}_score": found.bounds for name, found in self.calibration.score_ranges.items()}
        named = [
            f"{name} (from {bounds[name][0]:.3g} to {bounds[name][1]:.3g})" if name in bounds else name
            for name, lacking in missing.items()
            if (lacking & asked).any()
        ]
        if named:
            warnings.warn(
                f"mentions or candidates came without what this model reads: {', '.join(named)}; such mentions are "
                "never in the tier high. docs/INTEGRATION_GUIDE.md says what counts as given",
                stacklevel=4,
            )

    def _resolve_types(self, types: Sequence[Sequence[str]]) -> list[list[str]]:
        """Ids of the types of n mentions; one warning names what the model does not know."""
        resolved, unknown = [], {}
        for given in types:
            # MedMentions' own word for "no type" is no mistake.
            names = [name for name in given if name != UNKNOWN_TYPE]
            ids = list(map(self.thresholds.hierarchy.resolve, names))
            unknown |= {name: None for name, type_id in zip(names, ids, strict=True) if type_id is None}
            resolved.append([type_id for type_id in ids if type_id is not None])
        if unknown:
            named = ", ".join(map(reprlib.repr, list(unknown)[:NAMED_TYPES]))
            named += f" and {len(unknown) - NAMED_TYPES} more" if len(unknown) > NAMED_TYPES else ""
            # Python keeps the text of each warning for good, and requests choose it.
            if named not in self._named_types and len(self._named_types) >= MOST_WARNINGS:
                named = "others than those named so far"
            self._named_types.add(named)
            warnings.warn(
                f"semantic types unknown to this model: {named}; the default thresholds are used. "
                "Pass a type's name or id as in thresholds.json, or None",
                stacklevel=4,
            )
        return resolved


class _Parsed(NamedTuple):
    name: str
    cui: str | None
    text: str
    types: tuple[str, ...] | None
    retrieval: tuple[float, ...]
    is_preferred_known: bool = False
    is_definition_known: bool = False

    @property
    def concept(self) -> str:
        return self.cui or self.name


RETRIEVAL_KEYS = tuple(f"{name}_score" for name in RETRIEVAL_EVIDENCE)
TEXT_KEYS = ("cui", "preferred_name", "definition")
CANDIDATE_KEYS = ("name", *TEXT_KEYS, "semantic_types", *RETRIEVAL_KEYS)
WITHOUT_SCORES = (float("nan"),) * len(RETRIEVAL_KEYS)


def _read_mention(
    row: int | None, template: PairTemplate, entity: Any, candidates: Any, types: Any, left: Any, right: Any
) -> tuple[list[Any], list[_Parsed], list[str]]:
    """The candidates of a mention, what is read of them, and its types; errors name its `row`, where it has one."""
    try:
        for key, text in (("entity", entity), ("left", left), ("right", right)):
            if not isinstance(text, str):
                raise TypeError(f"{key} must be text, not {type(text).__name__}")
        if not entity.strip():
            raise ValueError("entity is blank; leave out mentions without text")
        # A text or a mapping would be taken for the list of its letters or keys.
        if isinstance(candidates, str | bytes | Mapping) or not isinstance(candidates, Iterable):
            raise TypeError(f"candidates are a {type(candidates).__name__}, not a list of names, mappings or objects")
        listed = list(candidates)
        return listed, [_parsed(item, place, template) for place, item in enumerate(listed)], _type_names(types)
    except (TypeError, ValueError) as error:
        if row is None:
            raise
        raise type(error)(f"mention {row}: {error}") from None


def _type_names(types: str | Sequence[str] | None) -> list[str]:
    if types is None:
        return []
    names = list(types) if isinstance(types, Iterable) and not isinstance(types, str) else [types]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"entity_type must be text or a list of texts, not {reprlib.repr(types)}")
    return names


def _parsed(candidate: Any, position: int, template: PairTemplate) -> _Parsed:
    if isinstance(candidate, str):
        return _Parsed(candidate, None, candidate, None, WITHOUT_SCORES)
    if isinstance(candidate, Mapping):
        name, *texts, types, _, _, _ = values = [candidate.get(key) for key in CANDIDATE_KEYS]
    else:
        name, *texts, types, _, _, _ = values = [getattr(candidate, key, None) for key in CANDIDATE_KEYS]
    if not isinstance(name, str):
        raise TypeError(
            f"candidate {position} ({type(candidate).__name__}) has no text name; pass a str, a mapping with 'name' "
            "and 'cui', or an object with .name and .cui"
        )
    for key, text in zip(TEXT_KEYS, texts, strict=True):
        if text is not None and not isinstance(text, str):
            raise TypeError(
                f"candidate {position} has a {key} that is no text: {reprlib.repr(text)}; pass a str, or None"
            )
    scores = [_score(*given, position) for given in zip(RETRIEVAL_KEYS, values[-len(RETRIEVAL_KEYS) :], strict=True)]
    kinds = (types,) if isinstance(types, str) else types
    if kinds is not None:
        kinds = tuple(kinds) if isinstance(kinds, Iterable) else (None,)
        if not all(isinstance(kind, str) for kind in kinds):
            raise TypeError(
                f"candidate {position} has semantic_types that are no list of texts: {reprlib.repr(types)}"
            )
    cui, preferred, definition = texts
    text = template.candidate_text(name, preferred, definition)
    known = bool(preferred and preferred.strip()), definition is not None
    return _Parsed(name, cui, text, kinds, tuple(scores), *known)


def _score(key: str, value: Any, position: int) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"candidate {position} has a {key} that is no number: {reprlib.repr(value)}") from None


def check_mention(row: Mapping[str, Any], template: PairTemplate) -> None:
    """Raise what ranking one mention would raise, given as in the files of umls-reranker rerank.

    Args:
        row: with ``entity``, ``candidates`` and, where known, ``entity_type``, ``left`` and ``right``.
        template: of the model that will rank it.

    Raises:
        TypeError, ValueError: as `UMLSReranker.rerank`.
    """
    types, *sides = row.get("entity_type"), row.get("left") or "", row.get("right") or ""
    _read_mention(None, template, row["entity"], row["candidates"], types, *sides)
