"""Corpora and the mentions of a run, from what a recipe names."""
