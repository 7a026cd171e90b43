"""Serving: Python, files, clusters, spaCy and HTTP, and monitoring."""
