"""Rows -> matrices that heads are fitted on."""
