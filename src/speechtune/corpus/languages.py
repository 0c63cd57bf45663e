"""Language codes and the English names by which the Qwen3-ASR models call languages."""

from __future__ import annotations

QWEN3_ASR_LANGUAGES = {
    "zh": "Chinese",
    "en": "English",
    "yue": "Cantonese",
    "ar": "Arabic",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pt": "Portuguese",
    "id": "Indonesian",
    "it": "Italian",
    "ko": "Korean",
    "ru": "Russian",
    "th": "Thai",
    "vi": "Vietnamese",
    "ja": "Japanese",
    "tr": "Turkish",
    "hi": "Hindi",
    "ms": "Malay",
    "nl": "Dutch",
    "sv": "Swedish",
    "da": "Danish",
    "fi": "Finnish",
    "pl": "Polish",
    "cs": "Czech",
    "fil": "Filipino",
    "fa": "Persian",
    "el": "Greek",
    "hu": "Hungarian",
    "mk": "Macedonian",
    "ro": "Romanian",
}
"""The 30 languages of the model cards of Qwen3-ASR-0.6B and 1.7B (arXiv 2601.21337), by code."""

_OTHERS = {
    "as": "Assamese",
    "bn": "Bengali",
    "brx": "Bodo",
    "doi": "Dogri",
    "gu": "Gujarati",
    "kn": "Kannada",
    "ks": "Kashmiri",
    "kok": "Konkani",
    "mai": "Maithili",
    "ml": "Malayalam",
    "mni": "Manipuri",
    "mr": "Marathi",
    "ne": "Nepali",
    "or": "Odia",
    "pa": "Punjabi",
    "sa": "Sanskrit",
    "sat": "Santali",
    "sd": "Sindhi",
    "ta": "Tamil",
    "te": "Telugu",
    "ur": "Urdu",
    "he": "Hebrew",
    "uk": "Ukrainian",
    "ca": "Catalan",
    "eu": "Basque",
    "gl": "Galician",
    "cy": "Welsh",
    "ga": "Irish",
    "sw": "Swahili",
    "yo": "Yoruba",
    "ha": "Hausa",
    "ig": "Igbo",
    "am": "Amharic",
    "si": "Sinhala",
    "km": "Khmer",
    "lo": "Lao",
    "my": "Burmese",
    "mn": "Mongolian",
    "kk": "Kazakh",
    "uz": "Uzbek",
    "bg": "Bulgarian",
    "sr": "Serbian",
    "hr": "Croatian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "et": "Estonian",
    "no": "Norwegian",
    "is": "Icelandic",
}

LANGUAGE_NAMES = {**QWEN3_ASR_LANGUAGES, **_OTHERS}
"""English names of languages by ISO 639 code (two letters where there are two)."""

_CODES = {name.casefold(): code for code, name in LANGUAGE_NAMES.items()}


def name_of_language(code: str | None) -> str | None:
    """The English name of a language code such as ``en`` or ``en-US``; ``None`` if it is not in the table."""
    return LANGUAGE_NAMES.get((code or "").replace("_", "-").split("-")[0].lower())


def code_of_language(name: str) -> str | None:
    """The code of an English language name; ``None`` if it is not in the table."""
    return _CODES.get(name.strip().casefold())
