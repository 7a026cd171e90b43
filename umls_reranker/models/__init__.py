"""Text in, numbers out: what is read of a pair, how it is batched, and the networks and runtimes that score it."""
