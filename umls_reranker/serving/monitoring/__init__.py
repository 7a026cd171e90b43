"""A reranker at work, watched: figures over sliding windows, drift against the model's test split, promises kept."""
