"""What a message tells the user to install exists, and brings what is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_extra_that_a_message_names_is_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'missing_extra\(\s*"[^"]+",\s*"([^"]+)"', sources))
    assert named >= {"audit", "hub"}
    assert named <= set(extras)
