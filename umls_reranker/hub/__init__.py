"""The model folder, which is the Hub repo: its parts, its card, and its publication."""
