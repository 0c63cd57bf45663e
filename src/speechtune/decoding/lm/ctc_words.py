"""What words earn in the beam search of a CTC model: a lexicon, an n-gram language model, terms that are preferred."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Hashable, Iterable
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.lm.ctc_terms import BoostedWords
from speechtune.decoding.lm.loading import load_lm
from speechtune.decoding.lm.mixture import Mixture
from speechtune.decoding.lm.model import BEGIN, END, LN10, UNKNOWN, LanguageModel, NgramModel, end_log_prob
from speechtune.decoding.lm.text import Words, words_function
from speechtune.models.ctc_search import CtcGuide, WordScores
from speechtune.models.ctc_search_config import CtcSearchConfig

_USUAL_LETTERS = 6
"""Unknown words longer than this are charged more (pyctcdecode's ``AVG_TOKEN_LEN``)."""
_MAX_CACHED = 200_000


class Lexicon:
    """A set of words that can also say whether any of them begins with a string."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)
        self._sorted = sorted(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def __len__(self) -> int:
        return len(self._sorted)

    def begins(self, part: str) -> bool:
        """Whether a word begins with ``part``."""
        place = bisect_left(self._sorted, part)
        return place < len(self._sorted) and self._sorted[place].startswith(part)


class LmWords:
    """Scores of a language model and a lexicon, by pyctcdecode's formula.

    A finished word earns ``alpha x log p + beta``; one outside the lexicon (or the model) has ``unknown_word`` added
    to its log10 probability. An unfinished one that no known word begins with is charged ``unknown_word``.

    Args:
        model: the language model; ``None``: only the lexicon counts, and a finished unknown word costs
            ``unknown_word``.
        lexicon: the known words, in the form that ``words`` gives; ``None``: the model alone knows.
        words: how a written word becomes the model's; punctuation alone is no word and earns nothing.
        alpha, beta: weights of `speechtune.decoding.search_blocks.LmConfig`.
        options: what unknown words cost.
        also: words that count as known, whatever the lexicon and the model say (they must be in the lexicon too).
    """

    def __init__(
        self,
        model: LanguageModel | None,
        lexicon: Lexicon | None,
        words: Words,
        alpha: float,
        beta: float,
        options: CtcSearchConfig,
        also: Container[str] = (),
    ) -> None:
        self.model, self.lexicon, self.words = model, lexicon, words
        self.alpha, self.beta, self.options, self.also = alpha, beta, options, also
        self._unfinished: dict[str, float] = {}

    def begin(self) -> Hashable:
        """The state at the start of a sentence."""
        return None if self.model is None else self.model.begin()

    def finished(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """What a word earns behind a state, and the next state."""
        total = 0.0
        for one in self.words(word):
            known = (self.lexicon is None or one in self.lexicon) and (self.model is None or self.model.knows(one))
            known = known or one in self.also
            if not known and self.options.lexicon_only and (self.lexicon is None or one not in self.lexicon):
                return -math.inf, state
            if self.model is None:
                total += 0.0 if known else self.options.unknown_word
                continue
            log_prob, state = self.model.score(state, one)
            if not known:
                log_prob += self.options.unknown_word * LN10
            total += self.alpha * log_prob + self.beta
        return total, state

    def unfinished(self, part: str, state: Hashable = None) -> float:
        """What the beginning of a word is charged until it is finished, behind any state."""
        charge = self._unfinished.get(part)
        if charge is None:
            if len(self._unfinished) >= _MAX_CACHED:
                self._unfinished.clear()
            charge = self._unfinished[part] = self._of_part(part)
        return charge

    def _of_part(self, part: str) -> float:
        if self.lexicon is None:
            return 0.0 if self.model is None else self._charge(part)
        pieces = self.words(part)
        if not pieces or (all(one in self.lexicon for one in pieces[:-1]) and self.lexicon.begins(pieces[-1])):
            return 0.0
        return -math.inf if self.options.lexicon_only else self._charge(part)

    def _charge(self, part: str) -> float:
        return self.options.unknown_word * max(1.0, len(part) / _USUAL_LETTERS)

    def end(self, state: Hashable) -> float:
        """What the end of the text earns."""
        return 0.0 if self.model is None else self.alpha * end_log_prob(self.model, state)


def ctc_guide(config: DecodingConfig) -> CtcGuide | None:
    """What the beam search of a CTC model is asked for; ``None`` if nothing beyond plain beams.

    Raises:
        InputError: a file cannot be read, or the options do not fit together.
    """
    lm, options, terms = config.lm, config.ctc, config.boost.all_terms()
    fused = lm.model is not None and lm.use != "rescore"
    if not fused and not terms and options.is_default():
        return None
    if lm.use == "fuse-tokens" and fused:
        raise InputError("decoding.lm.use: fuse-tokens does not work with a CTC model: set use to fuse or rescore")
    if config.beams < 2:
        raise InputError(
            "a lexicon, boosted terms and a fused language model act in the beam search of a CTC model and "
            f"decoding.beams is {config.beams}: set decoding.beams=50"
        )
    model = load_lm(str(lm.model)) if fused else None
    words = words_function(lm.words)
    named = {one for term in terms for one in words(term)}
    if options.lexicon is not None:
        listed: Iterable[str] | None = read_lexicon(Path(options.lexicon), words).words
    else:
        listed = None if model is None else words_of(model)
    lexicon = None if listed is None else Lexicon(named.union(listed))
    scores: WordScores | None = None
    if model is not None or lexicon is not None:
        scores = LmWords(model, lexicon, words, lm.alpha, lm.beta, options, named)
    return CtcGuide(options, BoostedWords(terms, words, scores) if terms else scores)


def words_of(model: LanguageModel) -> set[str] | None:
    """The words of a language model, where it lists them (KenLM's binaries do not)."""
    if isinstance(model, NgramModel):
        return set(model.words) - {BEGIN, END, UNKNOWN}
    if isinstance(model, Mixture):
        parts = [words_of(one) for one in model.models]
        return None if any(one is None for one in parts) else set[str]().union(*(one for one in parts if one))
    return None


def read_lexicon(path: Path, words: Words) -> Lexicon:
    """The first words of the lines of a file, in the form of the language model; empty lines are passed over.

    Raises:
        InputError: there is no such file, it is not UTF-8, or it has no words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"the lexicon {path} cannot be read ({error.strerror}): give a file of words") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the lexicon {path} is not UTF-8 text ({error}): convert it") from error
    found = {one for line in lines if line.strip() for one in words(line.split()[0])}
    if not found:
        raise InputError(f"the lexicon {path} has no words: write one a line")
    return Lexicon(found)
