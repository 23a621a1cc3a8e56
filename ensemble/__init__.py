"""Predictions of many heads in, one price per row out."""
