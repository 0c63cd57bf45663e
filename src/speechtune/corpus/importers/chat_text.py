"""From a CHAT main tier to what was said, in plain words.

The codes are those of the CHAT manual (https://talkbank.org/0info/manuals/CHAT.html); what becomes of each is in the
table of docs/corpus.md. What was spoken stays, what the transcriber added goes.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

UNINTELLIGIBLE = frozenset({"xxx", "yyy", "www", "xx", "yy"})

_TOKEN = re.compile(r"\[[^\]]*\]|<|>|[^\s<>\[\]]+")
_PAUSE = re.compile(r"\(\.{1,3}\)|\(\d*:?\d+\.?\d*\)")
_LINKER = re.compile(r"\+(?:[<,+^\"]|\"/?\.?|\.\.\.|\.\.\?|/{1,2}[.?]|/[.?]|!\?|\.|\?)+")
_CA_MARKS = re.compile("[↑↓⇗↗→↘⇘∞≈≋≡∙⌈⌉⌊⌋∆∇°▁▔☺♋⁇∬∾↻⤆Ἡ§∮∲ˈˌ^≠]")
_SUFFIX = re.compile(r"@[\w:+&$*-]+$")
_ENDS = frozenset(".?!,;")
_OLD_FILLERS = frozenset({"um", "umm", "uh", "uhm", "er", "erm", "ah", "eh", "hm", "hmm", "mm", "mhm"})
_COMMAS = {"‡": ",", "„": ","}


class Rules(BaseModel):
    """What ``--set`` takes for CHAT."""

    model_config = ConfigDict(extra="forbid")

    speakers: str = Field("", description="Speaker codes to import, comma-separated (CHI); empty: all.")
    fillers: Literal["keep", "drop"] = Field("keep", description="Filled pauses: &-um, &-uh.")
    fragments: Literal["keep", "drop"] = Field("drop", description="Cut-off words and nonwords: &+fr, &~blah.")
    retraced: Literal["keep", "drop"] = Field(
        "keep", description="What the speaker repeated or took back: [/] [//] [///]."
    )
    replacements: Literal["said", "target"] = Field(
        "said", description="gonna [: going to]: the word said, or the target."
    )
    shortenings: Literal["full", "said"] = Field("full", description="(be)cause: because, or cause as it was said.")
    punctuation: Literal["keep", "drop"] = Field("keep", description="Utterance ends and commas.")
    unintelligible: Literal["skip", "remove"] = Field(
        "skip", description="Utterances with xxx, yyy or www: leave them out (counted), or only the mark."
    )


def clean(tier: str, rules: Rules) -> tuple[str, bool]:
    """The words of a main tier without bullets, and whether something in it could not be transcribed."""
    groups: list[list[list[str]]] = [[]]  # a stack of groups; a group is a list of items; an item is a list of words
    unclear = False
    text = _PAUSE.sub(" ", _CA_MARKS.sub("", tier))
    for token in _TOKEN.findall(_detach(text)):
        if token == "<":
            groups.append([])
        elif token == ">":
            if len(groups) > 1:
                group = groups.pop()
                groups[-1].append([word for item in group for word in item])
        elif token.startswith("["):
            _apply(token[1:-1].strip(), groups[-1], rules)
        else:
            words, bad = _word(token, rules)
            unclear = unclear or bad
            if words or bad:
                groups[-1].append(words)
    return _join([word for group in groups for item in group for word in item], rules), unclear


def _detach(text: str) -> str:
    """Linkers and terminators (+<, +/., +...) set apart, so that < and > mark groups only."""
    return _LINKER.sub(" ", text.replace("+<", " ").replace("\u2039", "<").replace("\u203a", ">"))


def _apply(code: str, items: list[list[str]], rules: Rules) -> None:
    """A bracketed code acts on the item before it."""
    if not items:
        return
    if code in ("/", "//", "///", "/-", "/?"):
        if rules.retraced == "drop":
            items[-1] = []
    elif code.startswith(": ") or code.startswith(":: "):
        if rules.replacements == "target":
            items[-1] = code.lstrip(":").split()
    elif match := re.fullmatch(r"x\s*(\d+)", code):
        items[-1] = items[-1] * min(int(match[1]), 50)


def _word(token: str, rules: Rules) -> tuple[list[str], bool]:
    """The words a token stands for, and whether it is a mark of unintelligible speech."""
    if token in _COMMAS:
        return [_COMMAS[token]], False
    if _SUFFIX.sub("", token) in UNINTELLIGIBLE:
        return [], True
    if token.startswith("&"):
        return _event(token, rules), False
    if token.startswith(("0", "+", "#", "$")) or token in ("-", "--", "\u2013"):
        return ([token] if token[0] == "0" and token.isdigit() and len(token) > 1 else []), False
    word = _SUFFIX.sub("", token)
    word = re.sub(r"\(([^()\d.]*)\)", r"\1" if rules.shortenings == "full" else "", word)
    word = re.sub(r"(?<=\w):+(?=\w|$)", "", word)  # lengthened sounds: no::
    word = re.sub(r"^\"|\"$", "", word.replace("“", "").replace("”", ""))
    return [part for part in re.split(r"[_+~]", word) if part], False


def _event(token: str, rules: Rules) -> list[str]:
    """&-um is a filler, &+fr a fragment, &~no a nonword; &=laughs and &*MOT:mhm were not said by this speaker.

    Transcripts older than these signs write &um and &fr: the words of `_OLD_FILLERS` are then fillers.
    """
    old = token[1:2].isalpha()
    word = re.sub(r"[:()]", "", _SUFFIX.sub("", token[1:] if old else token[2:]))
    filler = word.lower() in _OLD_FILLERS if old else token.startswith("&-")
    fragment = (old and not filler) or token.startswith(("&+", "&~"))
    kept = (filler and rules.fillers == "keep") or (fragment and rules.fragments == "keep")
    return [word] if kept and word else []


def _join(words: list[str], rules: Rules) -> str:
    text = ""
    for word in words:
        if word in _ENDS:
            if rules.punctuation == "keep" and text:
                text = text.rstrip(",;") + word if text[-1] in _ENDS else text + word
        else:
            text += f" {word}" if text else word
    return "" if all(char in _ENDS for char in text) else text
