"""Candidate lists: the one row, its reader, flat columns, and labels."""
