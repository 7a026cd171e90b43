"""Models: templates, tokens, batches, and the networks and runtimes that score them."""
