"""Text conventions: how transcripts are written, per language, as named and recorded rules."""

from __future__ import annotations

from speechtune.corpus.conventions.config import Replacement, TextConventions
from speechtune.corpus.conventions.pipeline import TextChange, TextPipeline, TextResult, base_language

__all__ = ["Replacement", "TextChange", "TextConventions", "TextPipeline", "TextResult", "base_language"]
