"""The bytes of the tokens of a byte-level vocabulary."""

from __future__ import annotations

from speechtune.models.importers.whisper_tokens import WhisperTokens


def token_bytes(tokens: WhisperTokens) -> list[bytes]:
    """The bytes of every token before the end-of-text token, in order of id."""
    letters = byte_letters()
    by_id = {number: word for word, number in tokens.document["model"]["vocab"].items()}
    return [bytes(letters[letter] for letter in by_id[number]) for number in range(tokens.end_of_text)]


def byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    return {chr(number): number for number in printable} | {chr(256 + n): number for n, number in enumerate(others)}
