"""Fine-tuning of cross-encoder and bi-encoder: batches, trainers, callbacks and dev metrics."""
