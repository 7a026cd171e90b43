"""Basics for all other rooms: errors, files and stages of a run, recipes, downloads, devices."""
