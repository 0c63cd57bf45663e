"""What a normaliser makes of a text or a file, rule by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.scoring.inputs import read_raw_texts
from speechtune.scoring.normalisation.rules import Normaliser, Step
from speechtune.scoring.normalisation.variants import with_variants
from speechtune.scoring.normalisers import NORMALISERS, choose_normaliser, get_normaliser


@dataclass(slots=True)
class TextExplanation:
    """One text, its normalised form, and every step between."""

    text: str
    normaliser: Normaliser
    reason: str
    steps: list[Step]

    @property
    def normalised(self) -> str:
        """The normalised form."""
        return self.normaliser(self.text)

    def to_json(self) -> dict[str, Any]:
        """Text, result, normaliser and steps, JSON-ready."""
        return {
            "text": self.text,
            "normalised": self.normalised,
            "normaliser": self.normaliser.name,
            "reason": self.reason,
            "steps": [step.to_json() for step in self.steps],
        }

    def to_text(self) -> str:
        """The steps that changed something, for a person."""
        width = max(len(step.rule) for step in self.steps)
        lines = [f"normaliser {self.normaliser.name} ({self.reason})", f"{'':<{width}}  {self.text}"]
        lines += [f"{step.rule:<{width}}  {step.after}    # {step.about}" for step in self.steps if step.changed]
        return "\n".join([*lines, f"{'=':<{width}}  {self.normalised}"])


@dataclass(slots=True)
class FileExplanation:
    """Every text of a file, and how many of them each rule changed."""

    path: Path
    normaliser: Normaliser
    reason: str
    rows: list[tuple[str, str]]
    changed_by: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Counts and one object for each text, JSON-ready."""
        return {
            "file": str(self.path),
            "normaliser": self.normaliser.name,
            "reason": self.reason,
            "kept": len(self.rows),
            "changed_by": dict(self.changed_by),
            "empty_once_normalised": sum(bool(text.strip()) and not after for text, after in self.rows),
            "rows": [{"text": text, "normalised": after} for text, after in self.rows],
        }

    def to_text(self) -> str:
        """The normalised texts, one a line."""
        return "\n".join(after for _, after in self.rows)


def explain_normalisation(
    text_or_file: str,
    language: str | None = None,
    normaliser: str = "auto",
    variants: Mapping[str, Sequence[str]] | None = None,
) -> TextExplanation | FileExplanation:
    """Normalise a text, or every text of a file (one a line, or JSONL), and say what each rule did.

    Raises:
        InputError: the normaliser is unknown, or the file cannot be read.
    """
    path = Path(text_or_file)
    is_file = len(text_or_file) < 4096 and "\n" not in text_or_file and "\0" not in text_or_file and path.is_file()
    texts = read_raw_texts(path) if is_file else [text_or_file]
    name, reason = (normaliser, "as asked") if normaliser != "auto" else choose_normaliser([language], texts)
    pipeline = with_variants(get_normaliser(name), variants or {})
    if not is_file:
        return TextExplanation(text_or_file, pipeline, reason, pipeline.explain(text_or_file))
    result = FileExplanation(path, pipeline, reason, [(text, pipeline(text)) for text in texts])
    for text in texts:
        result.changed_by.update({step.rule for step in pipeline.explain(text) if step.changed})
    return result


def list_normalisers() -> dict[str, dict[str, Any]]:
    """Every normaliser with what it is for and its rules in order."""
    built = [get_normaliser(name) for name in NORMALISERS]
    return {
        one.name: {"about": one.about, "rules": [{"rule": rule.name, "about": rule.about} for rule in one.rules]}
        for one in built
    }


def listed_as_text(listed: Mapping[str, Mapping[str, Any]]) -> str:
    """The normalisers and their rules for a person."""
    lines = []
    for name, one in listed.items():
        lines += [f"{name}: {one['about']}", *(f"    {rule['rule']}: {rule['about']}" for rule in one["rules"])]
    return "\n".join(lines)


def need_text(text: str | None) -> str:
    """The text, or an `InputError` that says one is needed."""
    if text is None:
        raise InputError("there is nothing to normalise: give a text or a file (--list shows the normalisers)")
    return text
