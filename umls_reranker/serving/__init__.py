"""Serving: Python, files, clusters, spaCy and HTTP, and figures of use."""
