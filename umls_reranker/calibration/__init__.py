"""From raw scores to decisions: calibrators, reliability estimates and thresholds.

`calibrators` and `thresholds` are what serving loads: they need numpy alone at import.
"""
