"""What models write where nobody speaks, by language; a text of nothing else is doubted where the evidence is low."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from speechtune.corpus.text_keys import text_key
from speechtune.corpus.text_patterns import INVENTED_PHRASES, MARKUP

SHORT_PHRASES = {
    # En: what whisper-tiny.en writes for the clips of benchmarks/hallucination.py; the other languages have the same
    # thanks, goodbyes and fillers. All of it is said often: it counts only together with low evidence.
    "en": ("you", "thank you", "thanks", "thank you very much", "bye", "bye bye", "okay", "ok", "oh", "so", "the", "i",
           "hmm", "mm", "uh", "um", "yeah", "music", "applause", "silence", "i'm sorry", "i'm not sure"),
    "fr": ("merci", "merci beaucoup", "au revoir", "musique"),
    "es": ("gracias", "muchas gracias", "adiós", "música"),
    "de": ("danke", "vielen dank", "tschüss", "musik"),
    "it": ("grazie", "grazie mille", "ciao", "musica"),
    "pt": ("obrigado", "obrigada", "tchau", "música"),
    "nl": ("dank je wel", "bedankt", "doei", "muziek"),
    "pl": ("dziękuję", "dzięki", "muzyka"),
    "ru": ("спасибо", "музыка", "пока"),
    "tr": ("teşekkürler", "teşekkür ederim", "müzik"),
    "ja": ("ありがとうございました", "おやすみなさい", "音楽"),
    "ko": ("감사합니다", "고맙습니다", "음악"),
    "zh": ("谢谢", "謝謝", "音乐", "謝謝大家", "谢谢大家"),
    "ar": ("شكرا", "موسيقى"),
    "hi": ("धन्यवाद", "संगीत"),
}  # fmt: skip


def only_invented(text: str, language: str | None, more: Sequence[str] = (), known: bool = True) -> bool:
    """Whether a text consists of such phrases alone, sound tags ("[Music]", notes) included; false for an empty text.

    Args:
        text: a transcript.
        language: its code; phrases of other languages are not looked for, except the long ones, which are in any text.
        more: further phrases.
        known: use this module's lists.
    """
    if not text.strip():
        return False
    key = text_key(MARKUP.sub(" ", text) if known else text)
    return not _pattern(language, tuple(more), known).sub(" ", key).strip()


@lru_cache(maxsize=64)
def _pattern(language: str | None, more: tuple[str, ...], known: bool) -> re.Pattern[str]:
    phrases = [*more]
    if known:
        phrases += [*INVENTED_PHRASES, *SHORT_PHRASES.get(language or "", ())]
    keys = sorted({text_key(one) for one in phrases} - {""}, key=len, reverse=True)
    spaced = [rf"(?<!\w){re.escape(one)}(?!\w)" if ord(one[0]) < 0x3000 else re.escape(one) for one in keys]
    return re.compile("|".join(spaced) or r"(?!)")
