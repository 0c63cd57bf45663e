"""Writes the table of ``docs/families.md`` from the families' declarations.

Run ``python -m speechtune.models.capabilities_table docs/families.md`` after a declaration changed;
`tests/models/test_capabilities.py` fails while the committed table differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_text
from speechtune.models.capabilities import declared

BEGIN, END = "<!-- families: begin (generated) -->", "<!-- families: end -->"

ROWS = (
    ("full", "full fine-tuning"),
    ("lora", "LoRA and its kin"),
    ("layer_wise", "freezing and rates by depth"),
    ("distillation", "distillation, KL, feature losses"),
    ("grpo", "GRPO"),
    ("contexts", "audio context"),
    ("time_tokens", "timestamps trained and decoded"),
    ("word_times", "times of words"),
    ("n_best", "N-best lists"),
    ("search", "sampling, penalties, prompts"),
    ("lm_fusion", "language model in the search"),
    ("streaming", "live transcription"),
    ("no_speech", "probability of silence"),
    ("label_likelihood", "judges labels token by token"),
    ("shrinks", "students with fewer layers"),
    ("exports", "exports"),
)
"""Capabilities in the order of the work, and what the table calls them."""

_CONTEXTS = {("fit",): "each clip its own length", ("fit", "full"): "fitted, or the padded window"}


def families_table() -> str:
    """The two tables in Markdown: what each family is, and what works for it."""
    found = declared()
    kinds = [kind for kind, _ in found.values()]
    lines = ["| family | model types | loss |", "|---|---|---|"]
    for name, (kind, types) in found.items():
        listed = ", ".join(f"`{one}`" for one in types if one != "ctc")
        lines.append(f"| `{name}`: {_declaration(kind).title} | {listed} | {_declaration(kind).loss} |")
    lines += ["", "| | " + " | ".join(_declaration(kind).title for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    lines += [f"| {title} | " + " | ".join(_cell(kind, what) for kind in kinds) + " |" for what, title in ROWS]
    return "\n".join(lines)


def _declaration(kind: Any) -> Any:
    return kind.capabilities


def _cell(kind: Any, what: str) -> str:
    value = kind.contexts if what == "contexts" else getattr(_declaration(kind), what)
    if what == "contexts":
        return getattr(kind, "context_title", None) or _CONTEXTS.get(tuple(value), ", ".join(value))
    if isinstance(value, tuple):
        return ", ".join(value) or "its own directory only"
    return value if isinstance(value, str) else ("yes" if value else "no")


def with_table(text: str) -> str:
    """A page with its generated part made anew.

    Raises:
        InputError: the page lacks the marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"the page needs one line {BEGIN} and one line {END}: restore them")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{families_table()}\n{END}{rest.split(END)[1]}"


def main(page: Path) -> None:
    """Rewrite the page in place."""
    write_text(page, with_table(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
