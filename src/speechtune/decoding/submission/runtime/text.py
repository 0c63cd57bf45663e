"""Token ids to text, with nothing but ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


class ByteLevelText:
    """Whisper's byte-level vocabulary, read backwards."""

    def __init__(self, path: Path, special_from: int) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        letters = _letters()
        self.special_from = special_from
        self.bytes = {
            number: bytes(letters[letter] for letter in token)
            for token, number in document["model"]["vocab"].items()
            if number < special_from and all(letter in letters for letter in token)
        }

    def __call__(self, ids: Sequence[int]) -> str:
        """The text: special tokens left out, no white space around it, no line ends in it."""
        text = b"".join(self.bytes.get(int(one), b"") for one in ids).decode("utf-8", "replace")
        return text.replace("\r", " ").replace("\n", " ").strip()


def _letters() -> dict[str, int]:
    """The letter that stands for each byte in GPT-2's vocabulary, backwards."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in plain]
    return {chr(number): number for number in plain} | {chr(256 + place): one for place, one in enumerate(others)}
