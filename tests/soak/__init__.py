"""Attacks on tiny workspaces, for as many minutes as one likes: `python -m tests.soak --minutes 10`, or `make soak`.

Each attack draws cases from a seed, runs one, and gives a verdict. Nothing may end in a traceback, a silent change, a
hang, a loss, or an error whose way on doesn't work; what does is written to a file that repeats it.
"""
