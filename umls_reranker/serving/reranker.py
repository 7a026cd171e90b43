"""`UMLSReranker`: ranks candidates, with calibrated scores, margins, tiers and decisions."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.decisions import Decisions, rank
from ..calibration.probabilities import Calibration
from ..calibration.thresholds import TIERS
from ..core.arrays import list_sizes
from ..core.errors import UserError, warn_caller
from ..core.files import read_json
from ..core.retrievers import SCORES
from ..data.candidate_lists import CandidateLists
from ..data.list_columns import SYNONYM_SCORE
from ..hub.download import download
from ..hub.model_folder import CALIBRATOR, THRESHOLDS, has_network, save_copy, verify_model
from ..models.cross_encoder import PairScorer, score_lists
from ..models.template import PairTemplate
from .monitoring.figures import Top
from .monitoring.monitor import Monitor
from .ranked_candidates import RankedCandidate, ranked_candidates

# Number of unknown types that a warning names.
NAMED_TYPES = 3
# Maximum number of different warnings about unknown types per instance.
MOST_WARNINGS = 100


class UMLSReranker:
    """A cross-encoder with its calibrator and thresholds; or, without a network, what was calibrated on lists alone.

    Created by `from_pretrained`; safe to use from several threads. Its ``monitor`` (`monitoring.Monitor`) counts every
    result.

    >>> reranker = UMLSReranker.from_pretrained("runs/quickstart/model")
    >>> best = reranker.rerank("cold", ["Common Cold", "Cold Temperature"])[0]
    >>> best.name, best.tier, best.accepted
    ('Common Cold', 'medium', True)
    """

    def __init__(
        self,
        scorer: PairScorer | None,
        calibration: Calibration,
        folder: Path,
        info: dict[str, Any],
        accept_tier: str = "medium",
        exhaustive: bool = False,
    ) -> None:
        if accept_tier not in TIERS[:2]:
            raise UserError(f"accept_tier: {accept_tier!r} is unknown; choose from {', '.join(TIERS[:2])}")
        if not isinstance(exhaustive, bool):
            raise UserError(f"exhaustive: {exhaustive!r} is neither True nor False")
        self.accept_tier, self.exhaustive = accept_tier, exhaustive
        self.scorer = scorer
        self.calibration = calibration
        self.thresholds = calibration.thresholds
        self.folder = folder
        self.info = info
        self.monitor = Monitor.of_model(folder)
        self._named_types: set[str] = set()

    def __repr__(self) -> str:
        high = "certified" if self.thresholds.is_certified else "never given"
        return f"UMLSReranker({str(self.folder)!r}, accept_tier={self.accept_tier!r}); the tier high is {high}"

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
        exhaustive: bool = False,
    ) -> UMLSReranker:
        """Load a reranker from the Hub or a local folder.

        Args:
            id_or_path: Hub repo id, a model folder, or ``built-in``, the model without a network that comes with the
                package.
            revision: tag, branch or commit on the Hub; pin a tag in production.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default a GPU if there is one. Like ``dtype``, ``backend``
                and ``token_budget`` it is of the network; a model without one ignores them.
            dtype: ``float32``, ``bfloat16`` or ``float16``; by default bfloat16 if the hardware supports it, float16
                on older GPUs, else float32.
            token: Hub token for a private repo; by default from ``hf auth login`` or ``HF_TOKEN``.
            cache_dir: folder for downloads; by default the Hub's cache.
            backend: ``torch``, or ``onnx``, the same network as umls-reranker export made it: on a CPU in float32,
                without importing torch.
            token_budget: maximum tokens per forward pass; default 1,024 on a CPU, 65,536 on a GPU.
            accept_tier: lowest tier accepted at rank 1: ``medium``, by the model's thresholds, or ``high``, only what
                its certificate covers.
            exhaustive: score all candidates of all mentions, as `rerank` does if asked.

        Raises:
            UserError: the model is not found or not accessible, or a part is missing, damaged, changed or from another
                version (`model_folder.verify_model`).
        """
        folder = download(str(id_or_path), revision, token=token, cache_dir=cache_dir, backend=backend)
        info = verify_model(folder, backend)
        scorer = None
        if has_network(info):
            template = PairTemplate.from_dict(info["template"])
            scorer = PairScorer.from_folder(folder, template, device, dtype, backend, token_budget)
        return cls(
            scorer,
            Calibration.load(read_json(folder / CALIBRATOR), read_json(folder / THRESHOLDS), folder),
            folder,
            info,
            accept_tier,
            exhaustive,
        )

    def rerank(
        self,
        entity: str,
        candidates: Sequence[Any],
        entity_type: str | Sequence[str] | None = None,
        left: str = "",
        right: str = "",
        exhaustive: bool = False,
    ) -> list[RankedCandidate]:
        """Rank the candidates of one mention, best first.

        Args:
            entity: the mention's text.
            candidates: names, mappings with ``name`` (and ``cui``), or objects with ``.name`` (and ``.cui``), in
                retrieval order, which breaks ties, and counts where the model weighs ``list_position``. Duplicates
                stay in the list with equal scores. The list may be empty. ``preferred_name`` and ``definition`` are
                read by models whose template shows them; a definition is "" if the dictionary has none, and None if it
                is unknown. ``NAME_score``, such as ``bm25_score``, are the scores of the retrievers that the model was
                calibrated with; a list that lacks one it weighs, or has one far outside of what calibration saw, is
                decided without any of them. So is one that lacks other inputs in a candidate: by the fallback model of
                what all of them have. ``retrieval_score``, ``lexical_score`` and so on are those of our own retrievers
                and count only in the lists that `ConceptLinker.candidates` gives. ``semantic_types`` (ids or names, []
                if the dictionary has none) are the types of the concept, which may contradict the mention's.
            entity_type: the mention's semantic type (name or id), or several. Unknown ones use the default thresholds
                with one warning a call; None and MedMentions' ``UnknownType`` use them silently.
            left, right: text around the mention, used by models trained with context.
            exhaustive: whether the cross-encoder, if there is one, scores also candidates that cannot win by the other
                features. These have no logit otherwise. Thresholds and certificate were fitted without their logits.

        Returns:
            One `RankedCandidate` per candidate.

        Raises:
            TypeError: the mention, its context or a type is not text, the candidates are not a list, or a field of a
                candidate has the wrong type; names its position.
            ValueError: the mention is blank.

        Warns:
            UserWarning: types that the model does not know; inputs that it reads and that are missing, by name.
        """
        return self.rerank_batch([entity], [candidates], [entity_type], [left], [right], exhaustive=exhaustive)[0]

    def rerank_batch(
        self,
        entities: Sequence[str],
        candidates: Sequence[Sequence[Any]],
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | None = None,
        exhaustive: bool | Sequence[bool] = False,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of n mentions; each argument of `rerank` becomes a list of n.

        Args:
            desc: title of a progress bar; None shows none.
            exhaustive: of all mentions, or of each.

        Raises:
            TypeError, ValueError: as for `rerank`; names the mention's position if there are several.
        """
        # Iterators are consumed once but needed twice.
        candidates = [list(items) if isinstance(items, Iterator) else items for items in candidates]
        lists = self.read(entities, candidates, entity_types, lefts, rights)
        decisions = self.rank(lists, desc, exhaustive)
        return ranked_candidates(lists, decisions, list(chain.from_iterable(candidates)), self.input_names)

    def read(
        self,
        entities: Sequence[str],
        candidates: Sequence[Sequence[Any]],
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> CandidateLists:
        """What `rank` decides about; arguments and errors are those of `rerank_batch`."""
        return CandidateLists.from_objects(
            self.thresholds.hierarchy,
            entities,
            candidates,
            entity_types,
            lefts,
            rights,
            self.template.candidate_fields,
            self.calibration.scores,
        )

    def rank(
        self,
        lists: CandidateLists,
        desc: str | Callable[[int], Any] | None = None,
        exhaustive: bool | Sequence[bool] = False,
    ) -> Decisions:
        """Decide about candidates in columns; the monitor counts the results.

        Args:
            lists: types are ids of `thresholds.hierarchy`.
            desc, exhaustive: as for `rerank_batch`; instead of a bar, a function may be told how many more pairs are
                scored.

        Warns:
            UserWarning: as `rerank`.
        """
        decisions = rank(
            lists,
            lambda lists, retained: score_lists(self.scorer, lists, desc, retained),
            self.calibration,
            network_inputs=self.template.reads,
            accept_tier=self.accept_tier,
            exhaustive=self.exhaustive or exhaustive,
        )
        self._warn_of_types(lists.unknown_types)
        self._warn_of_missing(lists, decisions)
        self._count(lists, decisions)
        return decisions

    @property
    def template(self) -> PairTemplate:
        """How the network reads a pair; without a network, one that reads nothing but mention and name."""
        return PairTemplate() if self.scorer is None else self.scorer.template

    @property
    def input_names(self) -> list[str]:
        """Of the models that decide, as results name them (`RankedCandidate.inputs`)."""
        return [model.name for model in self.calibration.models]

    def get_confidence_tier(self, score: float, entity_type: str | Sequence[str] | None = None) -> str:
        """Tier of a calibrated probability of all inputs: ``high``, ``medium``, ``low`` or ``reject``.

        Raises:
            TypeError, ValueError: the score is no probability, or a type is not text.
        """
        if not 0 <= score <= 1:
            raise ValueError(f"score must be a calibrated probability, from 0 to 1, not {score}")
        lists = CandidateLists.from_objects(self.thresholds.hierarchy, ["mention"], [[]], [entity_type])
        self._warn_of_types(lists.unknown_types)
        return self.thresholds.for_type(lists.types[0]).tier(float(score))

    def get_statistics(self) -> dict[str, Any]:
        """Figures over everything this instance has ranked, overall and per semantic type (`Monitor.totals`)."""
        return self.monitor.totals()

    def reset_statistics(self) -> None:
        """Reset the figures."""
        self.monitor.reset()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write all parts to `folder`, for `from_pretrained`; other files there stay.

        Raises:
            UserError: `folder` is empty, cannot be written, or holds another kind of model.
        """
        if not str(folder):
            raise UserError("save_pretrained: the folder has no name; give one, or '.' for the working directory")
        return save_copy(self.folder, Path(folder), self.scorer.backend if self.scorer else "torch")

    def push_to_hub(self, repo_id: str, tag: str, *, private: bool = True, token: str | None = None) -> str:
        """Publish all parts as one commit and one tag (`publish`); returns the commit's URL."""
        # Loading a model needs none of what publishing imports.
        from ..hub.publish import publish

        return publish(self.folder, repo_id, tag, private=private, token=token)

    def _count(self, lists: CandidateLists, decisions: Decisions) -> None:
        """Tell the monitor what was decided about the top candidate of each mention."""
        sizes, models, names = list_sizes(lists.offsets).tolist(), decisions.models.tolist(), self.input_names
        for row, (position, types) in enumerate(zip(decisions.top.tolist(), lists.types, strict=True)):
            top = None
            if position >= 0:
                top = Top(
                    decisions.probabilities.item(position),
                    decisions.margins.item(position),
                    TIERS[decisions.tiers.item(position)],
                    decisions.accepted.item(position),
                )
            self.monitor.record(types, sizes[row], top, names[models[row]])
        self.monitor.add_truncated(decisions.truncated)

    def _warn_of_missing(self, lists: CandidateLists, decisions: Decisions) -> None:
        """One warning that names what any of the mentions with candidates came without, and what decided instead."""
        has_candidates = list_sizes(lists.offsets) > 0
        bounds = {f"{name}_score": known.bounds for name, known in self.calibration.score_ranges.items()}
        named = []
        for name, is_missing in decisions.missing.items():
            if (is_missing & has_candidates).any():
                span = " (from {:.3g} to {:.3g})".format(*bounds[name]) if name in bounds else ""
                named.append(f"{name}{span}")
        if not named:
            return
        lacking = has_candidates & np.logical_or.reduce([*decisions.missing.values()])
        used = []
        for number in np.unique(decisions.models[lacking]):
            model = self.calibration.models[number]
            # The first one decides where there is none without.
            is_certified = model.thresholds.is_certified and number > 0
            used.append(f"{model.name} ({'certified' if is_certified else 'never in the tier high'})")
        warn_caller(
            f"mentions or candidates came without what this model reads: {', '.join(named)}; decided by the models of "
            f"these inputs: {'; '.join(used)}. {self._remedy(lists, decisions)}"
            "docs/python.md says what counts as given"
        )

    def _remedy(self, lists: CandidateLists, decisions: Decisions) -> str:
        """What to do about scores of a dictionary, and of our own retrievers that are not of the calibrated index."""
        is_other = ~lists.are_of(self.calibration.index_key)[lists.owner]
        names, has_scores = [], np.zeros(len(is_other), bool)
        for name in SCORES:
            if name in lists.scores and f"{name}_score" in decisions.missing:
                not_counted = is_other & np.isfinite(lists.scores[name])
                has_scores |= not_counted
                names += [f"{name}_score"] if not_counted.any() else []
        if not names:
            by = f"{SYNONYM_SCORE}: added by rerank --umls_dir, and by umls_reranker.Dictionary. "
            return by if SYNONYM_SCORE in decisions.missing else ""
        if all(lists.index_keys[row] for row in np.unique(lists.owner[has_scores]).tolist()):
            return (
                f"{', '.join(names)}: of another index than the model was calibrated with; calibrate on this index. "
            )
        return (
            f"{', '.join(names)}: counted only in lists of ConceptLinker with the index that the model was calibrated "
            "with; name a score of your own NAME_score, such as sapbert_score, and calibrate the model on your lists: "
            "umls-reranker calibrate MODEL --lists. "
        )

    def _warn_of_types(self, unknown: Sequence[str]) -> None:
        """One warning that names types unknown to the model."""
        if not unknown:
            return
        named = ", ".join(map(reprlib.repr, unknown[:NAMED_TYPES]))
        named += f" and {len(unknown) - NAMED_TYPES} more" if len(unknown) > NAMED_TYPES else ""
        # Python keeps the text of each warning forever, and requests determine it.
        if named not in self._named_types and len(self._named_types) >= MOST_WARNINGS:
            named = "others than those named so far"
        self._named_types.add(named)
        warn_caller(
            f"semantic types unknown to this model: {named}; they count as missing. "
            "Pass a type's name or id as in thresholds.json, or None"
        )
