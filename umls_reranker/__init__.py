"""Rerank UMLS concept candidates with calibrated probabilities, abstention and a certified tier.

    >>> from umls_reranker import UMLSReranker
    >>> reranker = UMLSReranker.from_pretrained("runs/quickstart/model")
    >>> best = reranker.rerank("cold", ["Common Cold", "Cold Temperature"])[0]

A repository of the Hub is loaded in the same way:
``from_pretrained("org/my-reranker", revision="v1.0.0")``.

Importing the package is quick: torch and transformers load when a class that needs them is first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core.version import __version__

if TYPE_CHECKING:
    from .calibration.certificate import Certificate
    from .calibration.certify import certify
    from .core.errors import UserError
    from .evaluation.ranking_metrics import RankingMetrics
    from .linking.linked_concept import LinkedConcept
    from .linking.linker import ConceptLinker
    from .lists.dictionary import Dictionary
    from .serving.calibrate import calibrate
    from .serving.evaluate import evaluate
    from .serving.ranked_candidate import RankedCandidate
    from .serving.reranker import UMLSReranker
    from .training.rows import training_rows
    from .training.trainer import RerankerTrainer
    from .vocab.concept_table import ConceptTable

__all__ = [
    "Certificate",
    "ConceptLinker",
    "ConceptTable",
    "Dictionary",
    "LinkedConcept",
    "RankedCandidate",
    "RankingMetrics",
    "RerankerTrainer",
    "UMLSReranker",
    "UserError",
    "__version__",
    "calibrate",
    "certify",
    "evaluate",
    "training_rows",
]

_HOMES = {
    "Certificate": ".calibration.certificate",
    "ConceptLinker": ".linking.linker",
    "ConceptTable": ".vocab.concept_table",
    "Dictionary": ".lists.dictionary",
    "LinkedConcept": ".linking.linked_concept",
    "RankedCandidate": ".serving.ranked_candidate",
    "RankingMetrics": ".evaluation.ranking_metrics",
    "RerankerTrainer": ".training.trainer",
    "UMLSReranker": ".serving.reranker",
    "UserError": ".core.errors",
    "calibrate": ".serving.calibrate",
    "certify": ".calibration.certify",
    "evaluate": ".serving.evaluate",
    "training_rows": ".training.rows",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
