"""Corpora and vocabularies on disk, and the Arrow tables the stages make of them."""
