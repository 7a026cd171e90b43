"""Evaluate a reranker on candidate lists: metrics, other systems on the same lists, targets."""
