"""A model's answer for one mention, and the reasons for it, as plain values for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..calibration.lineage import DEFAULT
from ..calibration.thresholds import TypeThreshold
from ..core.settings import SCORES
from ..data.semantic_types import TypeHierarchy
from ..serving.ranked_candidates import RankedCandidate, ranked_candidates
from ..serving.reranker import UMLSReranker


@dataclass(frozen=True)
class Explanation:
    """The answer of one model for one mention.

    Attributes:
        model: name of the model.
        rows: candidates as ``umls-reranker rerank`` writes them, the top candidate first.
        about: for each candidate its preferred name, if different, and its semantic types.
        reasons: sentences: why the top candidate is accepted or not, and what its tier requires.
        inputs: input that the model reads besides mention and names -> whether it is present.
    """

    model: str
    rows: Sequence[Mapping[str, Any]]
    about: Sequence[Sequence[str]]
    reasons: Sequence[str]
    inputs: Mapping[str, bool]

    @property
    def accepted(self) -> bool:
        """Whether the top candidate is accepted."""
        return bool(self.rows) and self.rows[0]["accepted"]


def explain(
    reranker: UMLSReranker,
    model: str,
    mention: str,
    candidates: Sequence[Mapping[str, Any]],
    types: Sequence[str] = (),
    left: str = "",
    right: str = "",
) -> Explanation:
    """Rank the candidates of a mention and explain the decision.

    Args:
        reranker: the model.
        model: its name on the page.
        mention: text of the mention.
        candidates: candidates as for `UMLSReranker.rerank`, as mappings.
        types: ids or names of the mention's semantic types.
        left: text before the mention.
        right: text after the mention.

    Raises:
        ValueError: the mention is blank, or a value of a candidate has the wrong type.
    """
    try:
        lists = reranker.read([mention], [candidates], [list(types) or None], [left], [right])
    except TypeError as error:
        raise ValueError(str(error)) from None
    decisions = reranker.rank(lists)
    (ranked,) = ranked_candidates(lists, decisions, list(candidates), reranker.input_names)
    inputs = {name: not is_missing[0] for name, is_missing in decisions.missing.items()}
    missing = [name for name, is_given in inputs.items() if not is_given]
    thresholds = reranker.calibration.models[decisions.models[0]].thresholds.for_type(list(types))
    # The first model decides if no fallback model fits the inputs; it is certified for all inputs only.
    if missing and decisions.models[0] == 0:
        thresholds = replace(thresholds, high=None)
    about = [describe(item.candidate, reranker.thresholds.hierarchy) for item in ranked]
    reasons = _reasons(ranked, thresholds, missing, reranker.accept_tier, reranker.thresholds.target_precision)
    return Explanation(model, [item.as_row() for item in ranked], about, reasons, inputs)


def describe(candidate: Mapping[str, Any] | str, hierarchy: TypeHierarchy) -> list[str]:
    """A candidate's preferred name if it differs from its name, the names of its types, and a pipeline's scores."""
    if isinstance(candidate, str):
        return []
    preferred, types = candidate.get("preferred_name"), candidate.get("semantic_types") or ()
    other_name = [preferred] if preferred and preferred != candidate["name"] else []
    scores = [
        f"{key} {value:.4g}"
        for key, value in candidate.items()
        if key.endswith("_score") and key.removesuffix("_score") not in SCORES and isinstance(value, int | float)
    ]
    return other_name + hierarchy.names([types] if isinstance(types, str) else types) + scores


def _reasons(
    ranked: Sequence[RankedCandidate],
    thresholds: TypeThreshold,
    missing: Sequence[str],
    accept_tier: str,
    target_precision: float,
) -> list[str]:
    if not ranked:
        return ["There are no candidates."]
    top, threshold = ranked[0], thresholds.accept
    kind = "any type" if thresholds.accept_level == DEFAULT else "this type"
    score = top.score
    if top.accepted:
        reasons = [f"Its probability, {score:.3f}, reaches the acceptance threshold for {kind}, {threshold:.3f}."]
    elif score < threshold:
        reasons = [f"The top probability, {score:.3f}, is below the acceptance threshold for {kind}, {threshold:.3f}."]
    else:
        reasons = [f"The top candidate is in the {top.tier} tier; only the {accept_tier} tier is accepted here."]
    rival = next((item for item in ranked if (item.cui or item.name) != (top.cui or top.name)), None)
    if rival is not None:
        reasons.append(f"Its margin over {rival.name} is {top.margin:.3f}.")
    if top.tier == "high":
        reasons.append(f"It is in the high tier, certified for a precision of {100 * target_precision:g}%.")
    elif thresholds.high is None:
        reasons.append(f"The high tier is not certified for {kind} with these inputs, so no answer is in it.")
    elif top.accepted:
        reasons.append(f"The high tier starts at {thresholds.high:.3f}.")
    if missing:
        reasons.append(f"Missing inputs: {', '.join(missing)}; the fallback model {top.inputs} decided.")
    return reasons
