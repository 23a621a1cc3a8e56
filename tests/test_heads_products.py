"""A row's product has the same bits wherever it is and whatever is beside it, with every kernel of the library beneath."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import numpy as np
from heads.features.products import row_products

random = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for n, m in ((16, 8), (64, 62), (384, 511), (1280, 128), (3, 1)):
        row, W = random.normal(size=n).astype(dtype), random.normal(size=(n, m)).astype(dtype)
        X = random.normal(size=(37, n)).astype(dtype)
        for laid_out in (W, np.asfortranarray(W)):
            alone = row_products(row[None], laid_out)
            for at in range(len(X)):
                beside = X.copy()
                beside[at] = row
                assert (row_products(beside, laid_out)[at] == alone).all(), (dtype, n, m, at)
"""
AVX512 = Path("/proc/cpuinfo").is_file() and "avx512bw" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize("kernel", ["", "Nehalem", "Haswell", *(["SkylakeX"] if AVX512 else [])])
def test_a_row_s_product_depends_on_no_other_row_and_not_on_its_place(kernel):
    named = {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    found = subprocess.run(
        [sys.executable, "-c", CHECK], env=os.environ | named, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
