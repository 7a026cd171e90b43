"""From raw scores to decisions: calibrators, reliability estimates and thresholds.

Serving loads `calibrators` and `thresholds`; importing them needs only numpy.
"""
