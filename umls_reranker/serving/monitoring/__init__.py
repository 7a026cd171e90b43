"""A reranker at work, watched: figures over sliding windows, drift against the model's test split, promises kept.

Needs numpy alone at import.
"""

from .monitor import Alarm, Monitor
from .reference import REFERENCE_FILE, Reference

__all__ = ["REFERENCE_FILE", "Alarm", "Monitor", "Reference"]
