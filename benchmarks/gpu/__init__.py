"""Checks and figures on a GPU with models of full size and random weights: one command, no network, under 9 minutes."""
