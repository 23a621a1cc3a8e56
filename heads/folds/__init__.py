"""Fits and predictions fold by fold: cross-fitting, nested fits, parameter search."""
