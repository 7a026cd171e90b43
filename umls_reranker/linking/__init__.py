"""Linking: from the spans of a text to ranked concepts of a dictionary."""
