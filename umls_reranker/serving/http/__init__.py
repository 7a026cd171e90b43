"""The HTTP service: ``/rerank`` in the shape of Text Embeddings Inference, decisions, links, figures, health."""
