"""Serving: the reranker, calibration and evaluation on lists, files, clusters, statistics."""
