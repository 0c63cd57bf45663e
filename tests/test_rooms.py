"""Imports between rooms go one way."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "speechtune"

ROOMS = ("core", "audio", "corpus", "models", "decoding", "scoring", "training", "export", "report", "cli")
"""In the order of the data's way; a room may import itself and what stands before it."""


def imports_of(path: Path) -> set[str]:
    """The rooms a file imports, at its top or inside its functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        rooms |= {name.split(".")[1] for name in names if name.startswith("speechtune.")}
    return rooms


def test_every_room_imports_only_rooms_to_its_left() -> None:
    checked = 0
    for index, room in enumerate(ROOMS):
        for path in (SOURCE / room).rglob("*.py"):
            wrong = imports_of(path) - set(ROOMS[: index + 1])
            assert not wrong, f"{path.relative_to(SOURCE)} imports {', '.join(sorted(wrong))}"
            checked += 1
    assert checked > 40


def test_every_folder_is_a_room_of_the_plan() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


def test_no_file_is_long_without_saying_why() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 600 or "This file is long because" in text[:1500], path
