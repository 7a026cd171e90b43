"""The scoring engine: logits of (mention, candidate name) pairs, as fast as the machine allows."""

from .scorer import PairScorer, Scores

__all__ = ["PairScorer", "Scores"]
