"""Candidate concepts for a mention, by the similarity of names, and negatives among them."""
