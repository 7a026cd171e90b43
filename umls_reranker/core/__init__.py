"""What every part stands on: errors, files and stages of a run, recipes, downloads, devices."""
