"""Fine-tuning: the collator, the weighted-BCE trainer and the pair metrics."""
