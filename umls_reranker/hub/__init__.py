"""The model folder and Hub repo: parts, model card, publishing."""
