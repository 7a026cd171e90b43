"""Evaluate a reranker on candidate lists: linking metrics, baselines on the same lists, and target checks."""
