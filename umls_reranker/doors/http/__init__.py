"""The HTTP service: ``/rerank`` as in Text Embeddings Inference, decisions, links, metrics."""
