"""Features of a network in a file: written once for a fit, read batch by batch, the same bits as in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heads.features.design import Design
from heads.features.rows import Rows
from store.vectors.ondisk import OnDisk, scratch_folder

if TYPE_CHECKING:
    import torch
    from torch import nn


class MappedFeatures:
    """A batch function of `heads.networks.training` on features that lie in a file, gone with the object.

    Args:
        design: fitted on these rows.
        missing: which vectors a row lacks, shape (n_rows, n_widths) bool; None: none does.
        dtype: that the network takes its inputs in.
    """

    def __init__(
        self, design: Design, rows: Rows, missing: "torch.Tensor | None", dtype: "torch.dtype"
    ) -> None:
        import torch

        self._missing, self._dtype = missing, dtype
        self._folder = scratch_folder()
        kind = np.float32 if dtype == torch.float32 else np.int16  # NumPy has no bfloat16: its bits are kept
        self._X = OnDisk.zeros(Path(self._folder.name), "features", (len(rows), design.width(rows)), kind)
        for part, features in design.transform_parts(rows):
            held = torch.from_numpy(features).to(dtype)
            self._X[part] = held.numpy() if dtype == torch.float32 else held.view(torch.int16).numpy()

    def __call__(self, network: "nn.Module", index: "torch.Tensor") -> "torch.Tensor":
        import torch

        positions = index.numpy()
        ascending = np.argsort(positions)
        X = np.empty((len(positions), self._X.shape[1]), self._X.dtype)
        X[ascending] = self._X[positions[ascending]]
        missing = None if self._missing is None else self._missing[index]
        out: torch.Tensor = network(torch.from_numpy(X).view(self._dtype), missing)
        return out
