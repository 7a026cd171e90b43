"""Corpora and vocabularies on disk, and the Arrow tables made from them."""
