"""Judging a reranker on real candidate lists: linking metrics, baselines on the same lists, and target checks."""
