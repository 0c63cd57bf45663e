"""Vocabularies of CTC models: built from transcripts or taken from a checkpoint; what they can and can not write."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.models.ctc_config import Case, CtcConfig, Unknown

JOINERS = "'\N{RIGHT SINGLE QUOTATION MARK}-"
"""What may stand inside a word: two apostrophes and the hyphen."""

BLANK, UNKNOWN, SPACE = "<pad>", "<unk>", "|"
"""The names Transformers' CTC tokenizers use: padding is the blank, the bar stands between words."""


class CtcVocabulary:
    """A tokenizer of a CTC model, with the spelling rules that make every label readable back.

    Args:
        tokenizer: a `Wav2Vec2CTCTokenizer` (characters, clusters), or one backed by the tokenizers library (pieces).
        case: how labels are spelled; ``auto``: in the only case the vocabulary has, if it has one only.
        strip_punctuation: leave out punctuation, see `without_punctuation`.
        unknown: what is done with characters the vocabulary lacks.
    """

    def __init__(
        self, tokenizer: Any, *, case: Case = "auto", strip_punctuation: bool = False, unknown: Unknown = "error"
    ) -> None:
        self.tokenizer = tokenizer
        self.blank = int(tokenizer.pad_token_id)
        self.unk: int | None = tokenizer.unk_token_id if tokenizer.unk_token in tokenizer.get_vocab() else None
        self.pieces = not hasattr(tokenizer, "word_delimiter_token")
        self.folds = bool(getattr(tokenizer, "do_lower_case", False))
        special = {tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token}
        self.delimiter: int | None = None
        if not self.pieces:
            special.add(tokenizer.word_delimiter_token)
            self.delimiter = tokenizer.get_vocab().get(tokenizer.word_delimiter_token)
        self.units = {unit: number for unit, number in tokenizer.get_vocab().items() if unit not in special}
        self.longest = max((len(unit) for unit in self.units), default=1)
        self.case: Case = _case_of(self.units) if case == "auto" else case
        self.strip_punctuation = strip_punctuation
        self.unknown = unknown
        if unknown == "unk" and self.unk is None:
            raise InputError("the model's vocabulary has no unknown token: set model.ctc.unknown to error or remove")

    def __len__(self) -> int:
        return len(self.tokenizer.get_vocab())

    def spelled(self, text: str) -> str:
        """The text in Unicode NFC, single spaces, and the case and punctuation of the labels."""
        text = unicodedata.normalize("NFC", text)
        if self.strip_punctuation:
            text = without_punctuation(text)
        if self.case == "lower" or self.folds:
            text = text.lower()
        elif self.case == "upper":
            text = text.upper()
        return " ".join(text.split())

    def written(self, text: str) -> str:
        """What reading the label back gives: the spelled text without the characters the vocabulary lacks."""
        spelled = self.spelled(text)
        if self.pieces:
            words = (
                "".join(letter for letter in word if letter not in self._missing(word)) for word in spelled.split()
            )
            return " ".join(word for word in words if word)
        words = ("".join(unit for unit, number in self._cut(word) if number is not None) for word in spelled.split())
        return " ".join(word for word in words if word)

    def encode(self, text: str) -> list[int]:
        """Token ids of a label.

        Raises:
            InputError: the vocabulary lacks a character and ``unknown`` is ``error``.
        """
        spelled = self.spelled(text)
        if self.pieces:
            found = [int(one) for one in self.tokenizer.encode(spelled, add_special_tokens=False)]
            if self.unknown != "unk" and self.unk in found:
                self._refuse_or_pass(spelled)
                found = [one for one in found if one != self.unk]
            return found
        tokens: list[int] = []
        for word in spelled.split():
            own: list[int] = []
            for _, number in self._cut(word):
                if number is not None:
                    own.append(number)
                elif self.unknown == "unk":
                    own.append(int(self.unk or 0))
                else:
                    self._refuse_or_pass(spelled)
            if own and tokens and self.delimiter is not None:
                tokens.append(self.delimiter)
            tokens += own
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of collapsed token ids: no blanks, and equal neighbours are two letters."""
        text = self.tokenizer.decode(list(tokens), group_tokens=False, skip_special_tokens=True)
        return " ".join(str(text).split())

    def lacks(self, texts: Iterable[str]) -> Counter[str]:
        """How often each character that the vocabulary lacks stands in the (spelled) texts."""
        missing: Counter[str] = Counter()
        words: Counter[str] = Counter()
        for text in texts:
            words.update(self.spelled(text).split())
        for word, count in words.items():
            for unit in self._missing(word):
                missing[unit] += count
        return missing

    def _missing(self, word: str) -> list[str]:
        if not self.pieces:
            return [unit for unit, number in self._cut(word) if number is None]
        if self.unk is None or self.unk not in self.tokenizer.encode(word, add_special_tokens=False):
            return []
        single = [unit for unit in word if self.unk in self.tokenizer.encode(unit, add_special_tokens=False)]
        return single or [word]

    def _cut(self, word: str) -> list[tuple[str, int | None]]:
        """The word in units, the longest first; a character without one has no number."""
        cut: list[tuple[str, int | None]] = []
        place = 0
        form = word.upper() if self.folds else word
        while place < len(form):
            for length in range(min(self.longest, len(form) - place), 0, -1):
                unit = form[place : place + length]
                if unit in self.units:
                    cut.append((unit.lower() if self.folds else unit, self.units[unit]))
                    break
            else:
                length = 1
                cut.append((form[place], None))
            place += length
        return cut

    def _refuse_or_pass(self, text: str) -> None:
        if self.unknown == "error":
            raise InputError(
                f"the vocabulary lacks {_listed(self.lacks([text]))} of the text {text[:60]!r}: set model.ctc.head=new "
                "for a vocabulary from your transcripts, or model.ctc.unknown to unk or remove"
            )


def check_coverage(vocabulary: CtcVocabulary, texts: Sequence[str]) -> str | None:
    """Say which characters of the training texts a model can not write; ``None`` if it can write all.

    Raises:
        InputError: there are some and the vocabulary's ``unknown`` is ``error``.
    """
    missing = vocabulary.lacks(texts)
    if not missing:
        return None
    touched = sum(bool(vocabulary.lacks([text])) for text in texts)
    what = f"{missing.total()} characters in {touched} of {len(texts)} training texts: {_listed(missing)}"
    if vocabulary.unknown == "error":
        raise InputError(
            f"the model's vocabulary lacks {what}: set model.ctc.head=new for a vocabulary from your transcripts, "
            "model.ctc.punctuation=remove if it is punctuation, or model.ctc.unknown to unk or remove"
        )
    done = "stand as the unknown token" if vocabulary.unknown == "unk" else "are left out of the labels"
    return f"the vocabulary lacks {what}; they {done}"


def build_vocabulary(texts: Sequence[str], config: CtcConfig) -> CtcVocabulary:
    """A vocabulary from the training texts: blank, unknown, the mark between words, then the units in code order.

    Raises:
        InputError: there is nothing in the texts, or a text holds the bar that stands between words.
    """
    spell = _Spelling(config)
    spelled = [spell(text) for text in texts]
    if not any(spelled):
        raise InputError("the training texts are empty: a vocabulary cannot be made from them")
    options: dict[str, Any] = {
        "case": "keep" if config.case == "auto" else config.case,
        "strip_punctuation": config.punctuation == "remove",
        "unknown": config.unknown,
    }
    if config.units == "bpe":
        return CtcVocabulary(_pieces(spelled, config.bpe_size), **options)
    units = sorted({unit for text in spelled for word in text.split() for unit in _units(word, config.units)})
    if SPACE in units:
        raise InputError(
            f"a training text holds {SPACE!r}, which stands between words in a CTC vocabulary: replace it in the texts"
        )
    names = [BLANK, UNKNOWN, SPACE, *units]
    return CtcVocabulary(character_tokenizer({name: number for number, name in enumerate(names)}), **options)


def character_tokenizer(vocabulary: dict[str, int], language: str | None = None) -> Any:
    """A `Wav2Vec2CTCTokenizer` with exactly these units (Transformers' own defaults would add two).

    With ``language`` the vocabulary is one of several, as in MMS.
    """
    from transformers import Wav2Vec2CTCTokenizer

    stored: dict[str, Any] = {language: vocabulary} if language else vocabulary
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(path),
            bos_token=None,
            eos_token=None,
            pad_token=BLANK,
            unk_token=UNKNOWN,
            word_delimiter_token=SPACE,
            target_lang=language,
            clean_up_tokenization_spaces=False,
        )


def without_punctuation(text: str) -> str:
    """The text without Unicode punctuation and symbols; an apostrophe or hyphen between letters stays."""
    kept = []
    for place, char in enumerate(text):
        inside = 0 < place < len(text) - 1 and text[place - 1].isalnum() and text[place + 1].isalnum()
        if unicodedata.category(char)[0] not in "PS" or (char in JOINERS and inside):
            kept.append(char)
        elif char not in JOINERS[:2]:
            kept.append(" ")
    return "".join(kept)


class _Spelling:
    """The spelling rules of a configuration, before there is a vocabulary."""

    def __init__(self, config: CtcConfig) -> None:
        self.config = config

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if self.config.punctuation == "remove":
            text = without_punctuation(text)
        if self.config.case in ("lower", "upper"):
            text = getattr(text, self.config.case)()
        return " ".join(text.split())


def _units(word: str, kind: str) -> list[str]:
    if kind == "characters":
        return list(word)
    import regex

    return regex.findall(r"\X", word)


def _pieces(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import ParakeetTokenizer

    inner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[BLANK, UNKNOWN], show_progress=False)
    inner.train_from_iterator(sorted(texts), trainer)
    return ParakeetTokenizer(tokenizer_object=inner, pad_token=BLANK, unk_token=UNKNOWN)


def _case_of(units: dict[str, int]) -> Case:
    letters = [unit for unit in units if len(unit) == 1]
    lower = any(letter != letter.upper() for letter in letters)
    upper = any(letter != letter.lower() for letter in letters)
    if lower == upper:
        return "keep"
    return "lower" if lower else "upper"


def _listed(missing: Counter[str]) -> str:
    shown = [f"{unit!r} ({count})" for unit, count in missing.most_common(12)]
    return ", ".join(shown) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
