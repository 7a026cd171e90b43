"""Monitoring: figures over sliding windows, drift from the model's test split, and the high tier's guarantee."""
