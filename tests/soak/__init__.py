"""Attacks on tiny workspaces, for a given number of minutes: `python -m tests.soak --minutes 10`, or `make soak`.

Each attack draws cases from a seed, runs one, and gives a verdict. Nothing may end in a traceback, a silent change, a
hang, a loss, or an error whose next step doesn't work; a failing case is written to a file that repeats it.
"""
