"""A process for each measured system, and the memory that it held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def highest_mib() -> float:
    """The most memory this process has held; unlike ``ru_maxrss``, it knows nothing of the parent's."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


def run_once(script: str, job_file: Path, system: str, threads: int) -> dict[str, Any]:
    """One system of a script (``--work JOB --system NAME``); what it printed, or its last words under ``error``."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    words = [sys.executable, script, "--work", str(job_file), "--system", system]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
