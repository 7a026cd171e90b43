"""Answers: to Python, files, clusters, spaCy and HTTP, and what is watched of them."""
