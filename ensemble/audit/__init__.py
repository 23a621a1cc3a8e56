"""Checks of the rows behind the honest score, each with a verdict."""
