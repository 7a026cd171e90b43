"""Basics for all other layers: errors, files and stages of a run, recipes, downloads, devices."""
