"""Whole groups of rows dealt to folds that are alike in size and in strata."""

import numpy as np


def deal_groups(stratum: np.ndarray, group: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Deal groups one by one, the largest first and equals in random order.

    Each goes to the fold that so far holds least of its strata and fewest rows, the first of equals in
    an order drawn for each group. With as many groups as folds or more no fold stays empty.

    Args:
        stratum: int, shape (n_rows,), 0..n_strata-1.
        group: int, shape (n_rows,), 0..n_groups-1.

    Returns:
        int16, shape (n_rows,), 0..k-1.
    """
    size = np.bincount(group)
    random = np.random.default_rng(seed)
    order = random.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    first_choice = random.integers(k, size=len(size)).tolist()
    strata_of = np.split(stratum[np.argsort(group, kind="stable")], np.cumsum(size)[:-1])
    n_strata = int(stratum.max(initial=0)) + 1
    in_stratum = [[0] * n_strata for _ in range(k)]  # fold -> rows of each stratum
    in_fold = [0] * k
    fold_of = np.empty(len(size), np.int16)
    for g in order.tolist():  # plain lists: a group is mostly one row, for which NumPy is slower
        strata = strata_of[g].tolist()
        best, least = 0, -1
        for step in range(k):
            fold = (first_choice[g] + step) % k
            held = in_stratum[fold]
            # One row of a stratum weighs as much as one of all rows times the number of strata.
            load = in_fold[fold] * len(strata) + n_strata * sum(held[s] for s in strata)
            if least < 0 or load < least:
                best, least = fold, load
        for s in strata:
            in_stratum[best][s] += 1
        in_fold[best] += len(strata)
        fold_of[g] = best
    return fold_of[group]
