"""Commands of `shelfprice` on one workspace, each a process of its own, timed."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Stages:
    """Runs commands and records how long each took."""

    workspace: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, *arguments: str) -> Any:
        """One command; its JSON."""
        command = [sys.executable, "-m", "store.cli", *arguments, "-w", str(self.workspace), "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        self.seconds[stage] = time.perf_counter() - started
        return json.loads(done.stdout)
