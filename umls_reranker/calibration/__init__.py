"""From raw scores to decisions: features, fusions, calibrators, thresholds and certificates."""
