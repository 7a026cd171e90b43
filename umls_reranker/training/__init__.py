"""Fine-tuning of the cross-encoder and of the bi-encoder: batches, trainers, callbacks and dev
metrics.
"""
