"""From raw scores to decisions: calibrators, reliability estimates, thresholds and their plots.

`calibrators` and `thresholds` are what serving loads: they need numpy alone at import.
"""
