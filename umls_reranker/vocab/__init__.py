"""Dictionaries: names, types and relations of concepts."""
