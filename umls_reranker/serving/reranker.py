"""`UMLSReranker`: ranks candidates, with calibrated scores, margins, tiers and decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..calibration.calibration import Calibration
from ..calibration.decisions import Decisions
from ..calibration.ranking import rank
from ..calibration.thresholds import ACCEPT_TIERS
from ..core.errors import UserError, warn_caller
from ..core.json_files import read_json
from ..hub.file_names import CALIBRATOR, THRESHOLDS
from ..hub.manifest import has_cross_encoder, verify_model
from ..hub.model_download import download
from ..hub.model_folder import save_copy
from ..lists.candidate_lists import CandidateLists
from ..lists.table import mention_table, row_table
from ..models.cross_encoder import REMEMBERED_PAIRS, PairScorer, score_lists
from ..models.pair_template import PairTemplate
from .list_warnings import ListWarnings
from .ranked_candidate import RankedCandidate, ranked_candidates
from .statistics import Statistics


class UMLSReranker:
    """Ranks candidates with calibrated probabilities, tiers and decisions.

    `UMLSReranker.from_pretrained` loads it: a cross-encoder with its calibrator and thresholds, or
    a model without a cross-encoder that was calibrated on candidate lists alone. Safe to use from
    several threads.

    >>> reranker = UMLSReranker.from_pretrained("runs/quickstart/model")
    >>> best = reranker.rerank("cold", ["Common Cold", "Cold Temperature"])[0]
    >>> best.name
    'Common Cold'

    Attributes:
        accept_tier (str): lowest tier accepted at rank 1: ``medium`` or ``high``.
        calibrated_on (str): the lists that get tiers and decisions, in words; others get scores,
            and their ``tier`` and ``accepted`` are None.
        exhaustive (bool): whether the cross-encoder scores all candidates.
        folder (Path): the model's folder.
        info (dict): contents of the model's ``reranker.json``.
        model_names (list): the models that may decide, as in `RankedCandidate.model_name`.
        statistics (Statistics): counts every result.
    """

    def __init__(
        self,
        cross_encoder: PairScorer | None,
        calibration: Calibration,
        folder: Path,
        info: dict[str, Any],
        accept_tier: str = "medium",
        exhaustive: bool = False,
    ) -> None:
        if accept_tier not in ACCEPT_TIERS:
            raise UserError(
                f"accept_tier: {accept_tier!r} is unknown; choose from {', '.join(ACCEPT_TIERS)}"
            )
        if not isinstance(exhaustive, bool):
            raise UserError(f"exhaustive: {exhaustive!r} is not True or False")
        self.accept_tier = accept_tier
        self.exhaustive = exhaustive
        self.cross_encoder = cross_encoder
        self.calibration = calibration
        self.model_names = [model.name for model in calibration.models]
        self.thresholds = calibration.thresholds
        self.calibrated_on = calibration.source.in_words
        self.folder = folder
        self.info = info
        self.statistics = Statistics()
        self._warnings = ListWarnings(calibration)
        #: How the cross-encoder reads a pair; without one, only mention and name.
        self.template = PairTemplate() if cross_encoder is None else cross_encoder.template

    @property
    def quotes_callers(self) -> bool:
        """Whether warnings name types and keys of the caller.

        A service sets it to False, because its log must not hold texts of requests.
        """
        return self._warnings.quotes_callers

    @quotes_callers.setter
    def quotes_callers(self, value: bool) -> None:
        self._warnings.quotes_callers = value

    def __repr__(self) -> str:
        certificate = self.thresholds.certificate
        high = "not certified"
        if certificate is not None and certificate.threshold is not None:
            high = f"certified from a score of {certificate.threshold:.3f} on"
        arguments = f"{str(self.folder)!r}, accept_tier={self.accept_tier!r}"
        target = f"the high tier, of precision {self.thresholds.target_precision:g}"
        return f"UMLSReranker({arguments}) for {self.calibrated_on}; {target}, is {high}"

    @classmethod
    def from_pretrained(  # noqa: PLR0913 (transformers' options, by their names there)
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
        subfolder: str = "",
        local_files_only: bool = False,
        force_download: bool = False,
        remembered_pairs: int = REMEMBERED_PAIRS,
    ) -> UMLSReranker:
        """Load a reranker from the Hub or a local folder.

        There is no ``device_map``, because a cross-encoder is on one device, and no
        ``attn_implementation``, because BERT has an attention of its own, without padding; other
        cross-encoders have the one that transformers selects.

        Args:
            id_or_path: Hub repo id, a model folder, or one of the models of the package,
                ``built-in`` with an encoder of names and ``built-in-fast`` without a network.
            revision: tag, branch or commit on the Hub; pin a tag in production.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default a GPU if there is one. A model
                without a cross-encoder ignores it, as it does ``dtype``, ``backend`` and
                ``token_budget``.
            dtype: ``float32``, ``bfloat16`` or ``float16``; by default float32 on a CPU, bfloat16
                on a GPU, and float16 on GPUs that are slow in bfloat16.
            token: Hub token for a private repo; by default from ``hf auth login`` or ``HF_TOKEN``.
            cache_dir: folder for downloads; by default the Hub's cache.
            backend: ``torch``, or ``onnx``: the same cross-encoder as ``umls-reranker export``
                wrote it, on a CPU in float32, without importing torch.
            token_budget: maximum tokens per forward pass; by default 1,024 on a CPU, 65,536 on a
                GPU.
            accept_tier: lowest tier accepted at rank 1: ``medium``, by the model's thresholds;
                or ``high``, only what its certificate covers.
            exhaustive: whether the cross-encoder also scores the candidates that would be pruned,
                which have no logit otherwise. Thresholds and certificate were fitted without them.
            subfolder: folder of the reranker in the repo or local folder.
            local_files_only: download nothing.
            force_download: download even what is in the cache.
            remembered_pairs: number of pairs of texts whose logits are remembered from call to
                call, some 150 bytes each; a model that reads context remembers none. 0: none.

        Raises:
            UserError: the model is not found or not accessible, or a file is missing, damaged,
                changed or from another version.

        Warns:
            UserWarning: it runs in another dtype than it was calibrated in.

        >>> reranker = UMLSReranker.from_pretrained("built-in-fast")
        >>> reranker.model_names[0]
        'all'
        """
        folder = download(
            id_or_path,
            revision,
            backend,
            subfolder=subfolder,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        info = verify_model(folder, backend)
        cross_encoder = None
        if has_cross_encoder(info):
            cross_encoder = PairScorer.from_folder(
                folder,
                PairTemplate.from_dict(info["template"]),
                device,
                dtype,
                backend,
                token_budget,
                remembered_pairs,
            )
            if cross_encoder.dtype != info["dtype"]:
                warn_caller(
                    f"this model was calibrated in {info['dtype']} and is loaded in "
                    f"{cross_encoder.dtype}, whose logits differ by up to some hundredths, so a "
                    f"few tiers may differ; dtype: {info['dtype']} loads it as calibrated"
                )
        return cls(
            cross_encoder,
            Calibration.load(
                read_json(folder / CALIBRATOR), read_json(folder / THRESHOLDS), folder
            ),
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
        index_key: str = "",
    ) -> list[RankedCandidate]:
        """Rank the candidates of one mention, the top candidate first.

        Args:
            entity: the mention's text.
            candidates: names, mappings with these keys, or objects with these attributes, in
                retrieval order. Only the name is required; the list may be empty.

                * ``name``: the candidate's name, not blank.
                * ``cui``, or in mappings ``id``: the id of its concept, any text.
                * ``preferred_name``: the concept's preferred name.
                * ``definition``: the concept's definition; "" if the dictionary has none, None if
                  it is unknown.
                * ``semantic_types``: the concept's types, ids or names; [] if the dictionary has
                  none. They may contradict the mention's type.
                * ``NAME_score``, such as ``bm25_score``: the score of a retriever that the model
                  was calibrated with.
                * ``retrieval_score``, ``context_score``, ``lexical_score``: scores of this
                  package's retrievers, which count only with the ``index_key`` of the index that
                  the model was calibrated with.

                Retrieval order breaks ties, and counts where the model weighs ``list_position``;
                with ``built-in``, where candidates have a score.
                Duplicates stay in the list with equal scores. If a candidate lacks an input that
                the model reads, no candidate has one of its scores, or a score lies far outside the
                range of calibration, a fallback model that needs no such input decides.
            entity_type: the mention's semantic type (name or id), or several. Unknown types use the
                default thresholds with one warning per call; None and MedMentions' ``UnknownType``
                use them silently.
            left: text before the mention, used by models trained with context.
            right: text after the mention.
            index_key: key of the index that retrieved the candidates, as in the rows of a run.

        Returns:
            One `RankedCandidate` per candidate.

        Raises:
            TypeError: the mention, its context or a type is not text, the candidates are not a
                list, or a field of a candidate has the wrong type; the message names its position.
            ValueError: the mention is blank.

        Warns:
            UserWarning: the model does not know a type, or inputs that it reads are missing; names
                them.

        >>> reranker = UMLSReranker.from_pretrained("built-in-fast")
        >>> names = {"C0009443": "Common Cold", "C0009264": "Cold Temperature"}
        >>> candidates = [{"cui": cui, "name": name} for cui, name in names.items()]
        >>> best = reranker.rerank("common colds", candidates, "Disease or Syndrome")[0]
        >>> best.name, best.cui, round(best.score, 2), best.tier, best.accepted
        ('Common Cold', 'C0009443', 0.76, 'medium', True)
        """
        (ranked,) = self.rerank_batch(
            entities=[entity],
            candidates=[candidates],
            entity_types=[entity_type],
            lefts=[left],
            rights=[right],
            index_keys=[index_key],
        )
        return ranked

    def rerank_batch(
        self,
        entities: Sequence[str],
        candidates: Sequence[Sequence[Any]],
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        desc: str | None = None,
        index_keys: Sequence[str] | None = None,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of n mentions; faster than n calls of `rerank`.

        Args:
            entities: (n,) texts of the mentions.
            candidates: (n,) candidate lists, each as for `rerank`.
            entity_types: (n,) semantic types, each as for `rerank`; None: no mention has a type.
            lefts: (n,) texts before the mentions; None: no mention has context.
            rights: (n,) texts after the mentions.
            desc: title of a progress bar; None shows none.
            index_keys: (n,) keys, each as for `rerank`; None: they are unknown.

        Returns:
            (n,) lists, each as `rerank` returns it.

        Raises:
            TypeError: as for `rerank`; the message names the position if there are several.
            ValueError: as for `rerank`; likewise.
        """
        # Iterators are consumed once but needed twice.
        candidates = [list(items) if isinstance(items, Iterator) else items for items in candidates]
        scores = self.calibration.scores
        table = mention_table(
            entities, candidates, entity_types, lefts, rights, index_keys, scores=scores
        )
        lists = self.read_table(table)
        items = list(chain.from_iterable(candidates))
        return ranked_candidates(lists, self.decide(lists, desc), items, self.model_names)

    def read_rows(self, rows: Sequence[Mapping[str, Any]] | pa.Table) -> CandidateLists:
        """Read rows as in files; errors are those of `CandidateLists.from_rows`."""
        return self.read_table(row_table(rows, self.calibration.scores))

    def read_table(self, table: pa.Table) -> CandidateLists:
        """Read a table of mentions; errors are those of `CandidateLists.from_table`."""
        return CandidateLists.from_table(self.thresholds.hierarchy, table, self.calibration.scores)

    def rank(
        self,
        query: str,
        documents: Sequence[Any],
        top_k: int | None = None,
        return_documents: bool = False,
    ) -> list[dict[str, Any]]:
        """Rank as ``CrossEncoder.rank`` of sentence-transformers does, by calibrated probabilities.

        Args:
            query: the mention's text.
            documents: its candidates, as for `rerank`: names, mappings or objects.
            top_k: number of results; None: all.
            return_documents: whether a result holds its candidate under ``text``.

        Returns:
            ``{"corpus_id": position of the candidate, "score": its probability}`` of each, the top
            candidate first.
        """
        table = mention_table([query], [documents], scores=self.calibration.scores)
        lists = self.read_table(table)
        decisions = self.decide(lists)
        results = []
        for position in decisions.order.tolist()[:top_k]:
            result = {"corpus_id": position, "score": float(decisions.probabilities[position])}
            if return_documents:
                result["text"] = documents[position]
            results.append(result)
        return results

    def decide(
        self, lists: CandidateLists, desc: str | Callable[[int], Any] | None = None
    ) -> Decisions:
        """Decide about candidates in columns, and count the results.

        Args:
            lists: the lists; types are ids of ``thresholds.hierarchy``.
            desc: as for `rerank_batch`, or a function that gets the number of pairs just scored.

        Warns:
            UserWarning: as for `rerank`.
        """
        decisions = rank(
            lists,
            partial(score_lists, self.cross_encoder, desc=desc),
            self.calibration,
            cross_encoder_inputs=self.template.reads,
            accept_tier=self.accept_tier,
            exhaustive=self.exhaustive,
        )
        self._warnings.unknown_types(lists.unknown_types)
        self._warnings.lists_without_tiers(lists, decisions)
        self._warnings.missing_inputs(lists, decisions)
        self._warnings.partial_scores(lists)
        self.statistics.add(
            decisions.tops,
            self.model_names,
            truncated_pairs=decisions.truncated,
            scored_pairs=int(np.isfinite(decisions.scores.logits).sum()),
            computed_pairs=decisions.computed,
        )
        return decisions

    def advice(self, dtype: str | None, in_batches: bool) -> str | None:
        """A line about a faster dtype than this one, which it was loaded with, or None."""
        if self.cross_encoder is None:
            return None
        return self.cross_encoder.advice(dtype, in_batches)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its results: the hashes of its files, and its settings."""
        network = None
        if self.cross_encoder is not None:
            network = [self.cross_encoder.backend, self.cross_encoder.dtype]
        return {"the model": [self.info["sha256"], network, self.accept_tier, self.exhaustive]}

    def get_confidence_tier(
        self,
        score: float | RankedCandidate,
        entity_type: str | Sequence[str] | None = None,
        model_name: str | None = None,
    ) -> str | None:
        """Tier of a ranked candidate, or of a calibrated probability: one of ``thresholds.TIERS``.

        A number alone has no tier: it does not say which model decided, nor whether the list was of
        the source that it was calibrated on (`calibrated_on`).

        Args:
            score: a candidate of `rerank`, whose `tier` is returned; or a probability, of a list of
                the source that the reranker was calibrated on.
            entity_type: as for `rerank`; a ranked candidate has its tier already.
            model_name: of a probability, the model that decided, as in
                `RankedCandidate.model_name`.

        Raises:
            TypeError: a type is not text.
            ValueError: the score is not a probability, or there is no such model.

        >>> reranker = UMLSReranker.from_pretrained("built-in-fast")
        >>> candidates = [{"cui": "C0009443", "name": "Common Cold"}]
        >>> ranked = reranker.rerank("common colds", candidates, "Disease or Syndrome")
        >>> reranker.get_confidence_tier(ranked[0])
        'medium'
        """
        if isinstance(score, RankedCandidate):
            return score.tier
        if not 0 <= score <= 1:
            raise ValueError(f"score must be a calibrated probability, from 0 to 1, not {score}")
        if model_name not in self.model_names:
            choices = ", ".join(self.model_names)
            raise ValueError(
                f"model_name: a number alone has no tier; give the ranked candidate, or the model "
                f"that decided, one of {choices}, not {model_name!r}"
            )
        table = mention_table(["mention"], [[]], types=[entity_type])
        lists = CandidateLists.from_table(self.thresholds.hierarchy, table)
        self._warnings.unknown_types(lists.unknown_types)
        decided = self.calibration.models[self.model_names.index(model_name)]
        return decided.thresholds.for_type(lists.types[0]).tier(float(score))

    def get_statistics(self) -> dict[str, Any]:
        """Figures over everything this instance has ranked, and what its thresholds are.

        Returns:
            Those of `Statistics.to_dict`; and ``thresholds``: how many types
            have one of their own, the lowest, the median and the highest.
        """
        return {**self.statistics.to_dict(), "thresholds": self.thresholds.summary()}

    def reset_statistics(self) -> None:
        """Start the figures of `get_statistics` anew."""
        self.statistics.reset()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model to a folder that `from_pretrained` reads; other files there stay.

        Args:
            folder: is created if it does not exist.

        Returns:
            The folder.

        Raises:
            UserError: the folder has no name, cannot be written, or holds another kind of model.
        """
        if not str(folder):
            raise UserError(
                "save_pretrained: the folder has no name; "
                "give one, or '.' for the working directory"
            )
        backend = self.cross_encoder.backend if self.cross_encoder else "torch"
        return save_copy(self.folder, Path(folder), backend)

    def push_to_hub(self, repo_id: str, tag: str | None = None, **options: Any) -> str:
        """Publish the model as one commit and one tag of a Hub repo.

        Args:
            repo_id: ``organization/name``; a new repo is created.
            tag: name of the version, such as ``v1.0.0``; an existing tag is refused. None: there is
                no tag.
            options: ``private`` (True), ``gated``, ``branch``, ``create_pr``, ``commit_message``
                and ``token``, as of ``umls_reranker.hub.publish.publish``.

        Returns:
            URL of the commit or pull request.

        Raises:
            UserError: the repo cannot be written, or has this tag.
        """
        # Loading a model must not import what publishing needs.
        from ..hub.publish import publish

        return publish(self.folder, repo_id, tag, **options).url
