"""Basics for all other layers: errors, files, stages, recipe keys, arrays, devices."""
