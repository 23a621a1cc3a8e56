"""The stated minimums of the light packages, installed into an environment of their own, and the tests that need them.

    python -m tests.minimums FOLDER

PyTorch and what stands on it are left out: gigabytes, and not needed by what is tested here.
"""

import argparse
import configparser
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAVY = (
    *("open_clip_torch", "sentence-transformers", "sentencepiece", "tabm", "timm", "tokenizers", "torch"),
    *("torchvision", "transformers", "protobuf"),
)
# Tests of heads that need what is left out, known by the head's name among their parameters; the last takes every head.
WITHOUT = "not (fusion or mlp or tabm or tabicl or catboost or any_value_at_all or axe)"
FOR_TESTS = ("pytest", "hypothesis", "pandas", "trustme", "psutil")
# Files of tests that run without PyTorch, and reach every light package.
TESTS = (
    *(
        "test_ensemble_audit",
        "test_ensemble_blend",
        "test_ensemble_honest",
        "test_ensemble_score",
        "test_ensemble_simplex",
    ),
    *("test_heads_boosted", "test_heads_crossfit", "test_heads_estimators", "test_heads_honesty"),
    *(
        "test_heads_kernel_ridge",
        "test_heads_params",
        "test_heads_ridge",
        "test_heads_run",
        "test_heads_sparse",
    ),
    *(
        "test_heads_tune",
        "test_heads_xgboost",
        "test_old_workspace",
        "test_store_catalog_clean",
        "test_store_catalog_demo",
    ),
    *(
        "test_store_catalog_images",
        "test_store_catalog_ingest",
        "test_store_catalog_kinds",
        "test_store_catalog_show",
    ),
    *("test_store_config", "test_store_contracts", "test_store_download_fetch", "test_store_download_http2"),
    *(
        "test_store_download_run",
        "test_store_folds",
        "test_store_images_open",
        "test_store_matrix",
        "test_store_metric",
    ),
    *("test_store_workspace",),
)


def pins() -> list[str]:
    """Every light requirement at the lowest version that setup.cfg states."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    names = (re.match(r"[\w.-]+", line) for line in lines)
    light = [line for line, name in zip(lines, names, strict=True) if name and name[0] not in HEAVY]
    return [re.sub(r"^([\w.\[\]-]+)>=([\w.]+).*$", r"\1==\2", line) for line in light]


def main(folder: str) -> int:
    """Install, then test; the exit code of pytest."""
    if not (Path(folder) / "bin/python").exists():
        venv.create(folder, with_pip=True)
    python = [str(Path(folder) / "bin/python"), "-m"]
    subprocess.run([*python, "pip", "install", "--quiet", *pins(), *FOR_TESTS], check=True)
    subprocess.run([*python, "pip", "install", "--quiet", "--no-deps", "--editable", str(ROOT)], check=True)
    files = [f"tests/{name}.py" for name in TESTS]
    return subprocess.run([*python, "pytest", "-q", "-k", WITHOUT, *files], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of the virtual environment; made where it is not there")
    sys.exit(main(parser.parse_args().folder))
