"""The catalogue: raw file -> validated rows -> fields, images, folds."""
