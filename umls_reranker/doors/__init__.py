"""Doors: HTTP and spaCy."""
