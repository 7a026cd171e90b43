"""The top layer: recipes, the stages of a run, and what makes each."""
