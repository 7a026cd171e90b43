"""The class of the reference pipeline, `FineTunedCrossEncoderReranker`, over this package.

A pipeline that was written for it changes one import. Calibrator and thresholds are in the model
folder, as JSON, so the two paths may be left out.

    python examples/reference_pipeline.py

prints

    Common Cold 0.71 medium
    44 thresholds of types, median 0.430
"""

from pathlib import Path
from typing import Any

from umls_reranker import UMLSReranker


class FineTunedCrossEncoderReranker:
    """`UMLSReranker` with the constructor, the methods and the statistics of the reference.

    Args:
        model_path: model folder or Hub repo, as for `UMLSReranker.from_pretrained`.
        calibrator_path: ``calibrator.json`` of the model folder.
        threshold_tuner_path: ``thresholds.json`` of the model folder.
        device: as for `UMLSReranker.from_pretrained`.

    Raises:
        ValueError: a path is not that of the model's own file.
    """

    def __init__(
        self,
        model_path: str,
        calibrator_path: str | None = None,
        threshold_tuner_path: str | None = None,
        device: str | None = None,
    ) -> None:
        files = {"calibrator.json": calibrator_path, "thresholds.json": threshold_tuner_path}
        for name, given in files.items():
            own = Path(model_path, name)
            if given is not None and Path(given).resolve() != own.resolve():
                raise ValueError(f"{given}: calibrator and thresholds are the model's own, {own}")
        self.reranker = UMLSReranker.from_pretrained(model_path, device=device)
        self.rerank = self.reranker.rerank
        # Give it a row: a score alone has no tier.
        self.get_confidence_tier = self.reranker.get_confidence_tier

    def get_statistics(self) -> dict[str, Any]:
        """What is loaded, the thresholds of types, and `UMLSReranker.get_statistics`."""
        statistics = self.reranker.get_statistics()
        thresholds = statistics["thresholds"]
        return {
            "model_loaded": self.reranker.cross_encoder is not None,
            # No reranker loads without them.
            "calibrator_loaded": True,
            "threshold_tuner_loaded": True,
            "threshold_statistics": {
                "num_types": thresholds["types"],
                "threshold_min": thresholds["lowest"],
                "threshold_median": thresholds["median"],
                "threshold_max": thresholds["highest"],
            },
            **statistics,
        }


if __name__ == "__main__":
    reranker = FineTunedCrossEncoderReranker("built-in")
    candidates = [
        {"cui": "C0009443", "name": "Common Cold"},
        {"cui": "C0009264", "name": "Cold Temperature"},
    ]
    ranked = reranker.rerank(
        entity="common colds", candidates=candidates, entity_type="Disease or Syndrome"
    )
    best = ranked[0]
    tier = reranker.get_confidence_tier(best)
    print(f"{best.name} {best.cross_encoder_score:.2f} {tier}")
    types = reranker.get_statistics()["threshold_statistics"]
    print(f"{types['num_types']} thresholds of types, median {types['threshold_median']:.3f}")
