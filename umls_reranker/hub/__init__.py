"""The model folder and Hub repo: files, model card, publishing."""
