"""What does not belong into a transcript: markup, addresses, speaker labels, phrases that models invent."""

# ruff: noqa: RUF001 (phrases in other scripts)

from __future__ import annotations

import re

from speechtune.corpus.text_keys import text_key

_NOT_SPEECH = (
    "applause|background|beep|breath|cheer|chuckl|clap|clears? throat|click|cough|cross ?talk|foreign|giggl|inaudible|"
    "indistinct|laugh|lyrics|music|noise|pause|silence|sigh|singing|sneez|sniff|static|unclear|unintelligible|upbeat"
)
MARKUP = re.compile(
    "|".join(
        (
            r"<\|[^<>|\n]{1,40}\|>",  # <|startoftranscript|>
            r"</?[A-Za-z!][^<>\n]{0,80}>",  # <i>, <unk>, <v Speaker>
            r"\[[^\[\]\n]{1,60}\]",  # [noise]
            r"\{[^{}\n]{1,60}\}",  # {breath}
            rf"\((?i:[^()\n]{{0,40}}\b(?:{_NOT_SPEECH})[^()\n]{{0,40}})\)",  # (laughs), not any parenthesis
            r"&(?:[A-Za-z]{2,8}|#\d{1,6}|#x[0-9A-Fa-f]{1,6});",  # &amp;
            r"&=\w+",  # CHAT: &=laughs
            r"(?<!\w)\*{1,2}[^*\n]{1,60}\*{1,2}(?!\w)",  # *coughs*, **bold**
            r"[\u2669-\u266f]",  # musical notes
            r"\b\d{1,2}:\d{2}(?::\d{2})?[.,]\d{2,3}\b",  # subtitle times
            r"(?<!\S)!?(?:SIL|SPN|NSN)(?!\S)",  # Kaldi's silence and noise words
            r"^\s*(?:>>+|(?i:speaker|spk|spkr|interviewer|interviewee|unknown speaker|host|guest)[ _]?\w{0,3}\s*:)",
            r"^\s*\*?[A-Z][A-Z0-9_. ]{1,20}:(?=\s)",  # JOHN: , *CHI:
        )
    ),
    re.MULTILINE,
)
"""Tags, bracketed events, entities, speaker labels, subtitle times, music notes.

Ordinary parentheses are left alone (acronyms may be explained in them, notebook L5787-5794); bracketed ones are only
markup where they name a sound.
"""

URL = re.compile(
    r"(?:https?://|\bwww\.)\S+|\b[\w-]{2,63}\.(?:com|org|net|edu|gov|io|co\.uk)\b(?!\w)(?:/\S*)?", re.IGNORECASE
)
EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b")

INVENTED_PHRASES = (
    # notebook L13968-13997, L14385-14396; VocaHQ/vocalinux#334; zachlatta/freeflow#111
    "thank you for watching",
    "thanks for watching",
    "thank you so much for watching",
    "please subscribe",
    "subscribe to my channel",
    "like and subscribe",
    "don't forget to like and",
    "see you in the next video",
    # subtitle credits: ggml-org/whisper.cpp#2660 (fr), SubtitleEdit/subtitleedit#7748 (it), EdF2021/ithaka#96 (nl);
    # the rest of this group is the same credit in other languages, not each traced to a report
    "amara org",
    "ondertitels ingediend door",
    "ondertiteling door",
    "untertitel im auftrag des zdf",
    "untertitelung des zdf",
    "sous titres réalisés par",
    "sous titrage société radio canada",
    "merci d'avoir regardé cette vidéo",
    "subtítulos realizados por",
    "gracias por ver el video",
    "legendas pela comunidade",
    "sottotitoli creati dalla comunità",
    "napisy stworzone przez",
    "субтитры сделал",
    "субтитры создавал",
    "редактор субтитров",
    "спасибо за просмотр",
    # Vexa-ai/vexa#617 (Japanese, Turkish); amicalhq/amical#71 (Japanese); PocketShell-io/pocketshell#452 (Korean)
    "abone olmayı unutmayın",
    "altyazı m k",
    "izlediğiniz için teşekkür",
    "ご視聴ありがとうございました",
    "次の動画でお会いしましょう",
    "チャンネル登録",
    "시청해주셔서 감사합니다",
    "시청해 주셔서 감사합니다",
    "구독과 좋아요",
    "请不吝点赞",
    "请不吝點贊",
    "字幕由",
    "字幕志愿者",
    "谢谢观看",
    "اشتركوا في القناة",
    "ترجمة نانسي",
)
"""Phrases that Whisper writes for silence and noise, because video subtitles end with them, in the form of `text_key`.

They are a warning, not a verdict: a person may say them. Bare thanks ("thank you", "merci") are not listed, since they
are said too often.
"""

_INVENTED = re.compile(
    "|".join(
        # A boundary only beside letters of spaced scripts.
        (rf"\b{re.escape(phrase)}\b" if ord(phrase[0]) < 0x3000 else re.escape(phrase))
        for phrase in map(text_key, INVENTED_PHRASES)
    )
)


def invented_phrase(text: str) -> str | None:
    """The first of `INVENTED_PHRASES` that a text contains, else ``None``."""
    found = _INVENTED.search(text_key(text))
    return found.group() if found else None


_RUN = re.compile(r"([^\W\d_])\1{5,}")
_UNSPACED_LOOP = re.compile(r"(.{2,20}?)\1{3,}")


def repeated_phrase(text: str, longest_words: int = 8) -> tuple[str, int] | None:
    """A loop: a phrase said over and over in a row; the phrase and how often, else ``None``.

    A phrase of two words or more counts from three times, a single word from four ("no no no" is said), a run of one
    letter from six. Text without spaces is searched for units of 2 to 20 characters from four times.
    """
    words = text_key(text).split()
    if len(words) - len(set(words)) >= 3:
        for size in range(1, min(longest_words, len(words) // 3) + 1):
            found = _loop(words, size, 4 if size == 1 else 3)
            if found:
                return found
    run = _RUN.search(text)
    if run:
        return run.group(1), len(run.group())
    if len(words) <= 2 and len(text) >= 12:
        loop = _UNSPACED_LOOP.search("".join(words))
        if loop:
            return loop.group(1), len(loop.group()) // len(loop.group(1))
    return None


def _loop(words: list[str], size: int, at_least: int) -> tuple[str, int] | None:
    """The longest run of one phrase of ``size`` words, where it repeats ``at_least`` times."""
    matching = 0
    best = 0
    end = 0
    for position in range(size, len(words)):
        matching = matching + 1 if words[position] == words[position - size] else 0
        if matching > best:
            best, end = matching, position
    times = best // size + 1
    if times < at_least:
        return None
    return " ".join(words[end - size + 1 : end + 1]), times
