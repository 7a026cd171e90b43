"""Finding candidate concepts for a mention by the similarity of names, and negatives for training
among them.
"""
