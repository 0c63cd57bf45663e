"""Other spellings of a word that count as it: a list of variants read from YAML or JSON, and the rule it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.scoring.normalisation.rules import Normaliser, Rule


def read_variants(path: Path) -> dict[str, list[str]]:
    """Read ``{form: [spelling, ...]}`` from a YAML or JSON file.

    Raises:
        InputError: the file is missing or is not such a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML or JSON text ({reason}): repair it") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no spellings: write them as form: [other spelling, ...]")
    return {_text(path, form): _spellings(path, form, others) for form, others in content.items()}


def _text(path: Path, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{path} has the form {value!r}, which is no text: put it in quotes")
    return value


def _spellings(path: Path, form: Any, others: Any) -> list[str]:
    listed = [others] if isinstance(others, str) else others
    if not isinstance(listed, list) or not all(isinstance(one, str) and one.strip() for one in listed):
        raise InputError(f"{path} key {form!r} needs a list of spellings in quotes: form: [other spelling, ...]")
    return listed


def with_variants(normaliser: Normaliser, variants: Mapping[str, Sequence[str]]) -> Normaliser:
    """The normaliser followed by a rule that turns each spelling, one or more words, into its form.

    Forms and spellings are normalised first, so that case and punctuation in the list do not matter. The longest
    spelling wins.

    Raises:
        InputError: one spelling is listed under two forms, or a form or spelling normalises to nothing.
    """
    if not variants:
        return normaliser
    known: dict[str, str] = {}
    for form, others in variants.items():
        target = normaliser(form)
        for spelling in others:
            source = normaliser(spelling)
            if not source or not target:
                raise InputError(f"the spelling {spelling!r} of {form!r} is empty once normalised: leave it out")
            if known.setdefault(source, target) != target:
                raise InputError(f"the spelling {spelling!r} is listed under {known[source]!r} and {target!r}: choose")
    chained = sorted(
        source for source, target in known.items() if source != target and known.get(target, target) != target
    )
    if chained:
        raise InputError(f"the form of {chained[0]!r} is itself a spelling of another form: name one form for both")
    longest_first = sorted(known, key=lambda one: (-len(one), one))
    pattern = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)")
    about = f"other spellings become one form ({len(known)} spellings of {len(variants)} words)"
    rule = Rule("variants", about, lambda text: pattern.sub(lambda match: known[match[0]], text))
    return normaliser.plus(rule, f"{normaliser.name}+variants")
