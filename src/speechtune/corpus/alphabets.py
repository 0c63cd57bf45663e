# ruff: noqa: RUF001 (letters that look alike are the subject of this file)
"""Which letters a language is written with, and which Unicode script a character belongs to."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable

from speechtune.core.errors import missing_extra

ALPHABETS: dict[str, str] = {
    "af": "a-zà-ïñ-ôöù-ýœ\u0300\u0301\u0302\u0308",
    "am": "ሀ-ሆለ-ቆቈቊ-ቍበ-ኆኈኊ-ኍነ-ኮኰኲ-ኵኸ-ኾወ-ዎዐ-ዖዘ-ዮደ-ዷጀ-ጎጐጒ-ጕጠ-ፆፈ-ፗ",
    "ar": (
        "\u0621-\u063a\u0640-\u0655\u066f\u0670\u067e\u0686\u0698\u069c\u06a2\u06a4\u06a5\u06a7\u06a8\u06a9\u06af\u06cc"
    ),
    "as": "\u0981\u0982\u0983অ-ঋএঐও-নপ-রলশ-হ\u09bc\u09be-\u09c4\u09c7\u09c8\u09cb-ৎ\u09d7\u09e2\u09e3ৰৱ",
    "az": "a-zçöüğışə\u0306\u0307\u0308\u0327",
    "ba": "\u0306\u0308а-яёғҙҡңҫүһәө",
    "be": "\u0301\u0306\u0308а-зй-шы-яёіў",
    "bg": "\u0300\u0306а-ёѝѣѫ",
    "bn": "\u0981\u0982\u0983অ-ঌএঐও-নপ-রলশ-হ\u09bc-\u09c4\u09c7\u09c8\u09cb-ৎ\u09d7ৠ-\u09e3ৰৱ",
    "bo": (
        "ༀཀཁགང-ཇཉ-ཌཎ-དན-བམ-ཛཝ-ཨཪ\u0f71\u0f72\u0f74\u0f77\u0f79-\u0f80\u0f84\u0f90\u0f91\u0f92\u0f94-\u0f97"
        "\u0f99-\u0f9c\u0f9e-\u0fa1\u0fa3-\u0fa6\u0fa8-\u0fab\u0fad-\u0fb8\u0fba\u0fbb\u0fbc"
    ),
    "br": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏœūŭʼ\u0300\u0302\u0303",
    "bs": "a-zćčđšž\u0301\u030cа-ик-шђј-ћџ",
    "ca": "a-zºà-ïñ-ôöø-üÿāăēĕīĭŀōŏœūŭ\u0300\u0301\u0308\u0327",
    "cs": "a-zà-ïñ-ôöø-ýÿāăčďēĕěīĭľłňōŏœŕřšťūŭůž\u0301\u030a\u030c",
    "cy": "a-zà-ïñ-ôöø-ýÿāăēĕīĭōŏœūŭŵŷ\u0300\u0301\u0302\u0308ẁẃẅỳ",
    "da": "a-zàáâä-ëíîïñóôöø-üÿœǿ\u0301\u030a",
    "de": "a-zß-ïñ-ôöø-üÿāăēĕğīĭıōŏœşūŭſ\u0300\u0301\u0307\u0308",
    "el": "\u0301\u0308ΐά-ώἀ-ἇἐ-ἕἠ-ἧἰ-ἷὂὃὄὐ-ὗὢ-ὧὰὲὴὶὸὺὼᾶῆῒῖῗῢῦῧῶ",
    "en": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏœūŭʻ\u0300-\u0303\u0308\u0327",
    "es": "a-zªºà-ïñ-ôöø-ýÿāăēĕīĭōŏœūŭ\u0301\u0303\u0308",
    "et": "a-zà-ïñ-öø-üāēīōŏœšūž\u0303\u0308\u030c",
    "eu": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏœūŭ\u0303\u0308",
    "fa": "\u0621-\u063a\u0640-\u0652\u0654\u0656\u0670\u067e\u0686\u0698\u06a9\u06af\u06cc",
    "fi": "a-zß-ëí-öø-ÿāăąćċčďđēėęěğģħīįıķĺļľłńņňŋőœŕřśŝşšţťŧūůűųźżžǥǧǩǯșțȟʒ\u0303\u0307\u0308\u030a\u030c",
    "fo": "a-záæíðóøúý\u0301\u030a",
    "fr": "a-zß-ïñ-öø-üÿāćēīœřšſǔ\u0300\u0301\u0302\u0308\u0327",
    "fy": "a-pr-wyzàáâäæè-ëíïòóôöù-ý\u0301\u0302\u0308",
    "ga": "a-záåéíóúċġ\u0301ḃḋḟṁṗṡṫ",
    "gl": "a-zªºà-ïñ-öø-üāăēĕīĭōŏœūŭɑ\u0301\u0303\u0308",
    "gu": "\u0a82\u0a83અ-ઋઍએઐઑઓ-નપ-રલળવ-હઽ-\u0ac3\u0ac7\u0ac8\u0acb\u0acc\u0acdૐૠ",
    "ha": "a-zàáâèéêìíîòóôùúûƙƴɓɗʼ\u0300-\u0303",
    "haw": "a-zāēīōūʻ\u0304",
    "he": "\u05b0-\u05b9\u05bb\u05bc\u05bd\u05bf\u05c1\u05c2\u05c4\u05d0-\u05ea",
    "hi": "\u0901\u0902\u0903अ-ऍएऐऑओ-नप-रलळव-ह\u093c-\u0945\u0947\u0948\u0949\u094b\u094c\u094dॐ",
    "hr": "a-zćčđšž\u0301\u030c",
    "ht": "a-zàáèéòó\u0300\u0301",
    "hu": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏőœūŭű\u0301\u0308\u030b",
    "hy": "ա-և",
    "id": "a-zå",
    "ig": "a-zàáèéìíòóùúāēīńŋōūǹɛɵ\u0300\u0301\u0304\u0307\u0323ḿṅẹịọụ",
    "is": "a-záæéíðóöúýþ\u0301\u0308\u0328",
    "it": "a-zªºß-ïñ-öø-üÿœ\u0300\u0301\u0302\u0308",
    "jv": "a-zâåèéêìòù\u0300\u0301\u0302",
    "ka": "ა-ჺⴀ-ⴥ",
    "kk": "\u0306\u0308а-яёіғқңүұһәө",
    "km": "ក-អឥឦឧឩ-\u17d2",
    "kn": "\u0c82\u0c83ಅ-ಌಎಏಐಒ-ನಪ-ಳವ-ಹ\u0cbc-\u0cc3\u0cc6\u0cc7\u0cc8\u0cca-\u0ccd\u0cd5\u0cd6ೞ",
    "ku": "a-zçêîûş\u0302\u0308\u0327ḧẍ",
    "ky": "\u0306\u0308а-яёңүө",
    "lb": "a-zß-ïñ-ôöø-üÿāăēĕğīĭıōŏœşūŭ\u0300\u0301\u0302\u0307\u0308",
    "ln": "a-záâéêíîóôúěǎǐǒɔɛ\u0301\u0302\u030c",
    "lo": "ກຂຄງຈຊຍດ-ທນ-ຟມຢຣລວສຫອ-\u0eb9\u0ebb\u0ebcຽເ-ໄໆ\u0ec8-\u0ecdໜໝ",
    "lt": "a-zàáãèéìíñòóõùúąčėęĩįšũūųž\u0300\u0301\u0303\u0304\u0307\u030c\u0328ẽ",
    "lv": "a-zāčēģīķļņōŗšūž\u0304\u030c\u0327",
    "mg": "a-zàáâè-ìîïñ-ôöýÿ\u0300-\u0303\u0308ồỳ",
    "mi": "a-zāēīōū\u0304",
    "mk": "\u0300\u0301а-ик-шѐѓѕјљњќѝџ",
    "ml": "\u0d02\u0d03അ-ഌഎഏഐഒ-നപ-ഹ\u0d3e-\u0d43\u0d46\u0d47\u0d48\u0d4d\u0d57ൠൡൺ-ൿ",
    "mn": "\u0306\u0308а-яёҗүһӊәө",
    "mr": "\u0901\u0902\u0903अ-ऍएऐऑओ-नप-ळव-ह\u093c-\u0945\u0947\u0948\u0949\u094b\u094c\u094dॐ",
    "ms": "a-zå",
    "mt": "a-zàèìòùċġħż\u0300\u0302\u0307",
    "my": "က-\u1034\u1036-ဿၐ-ၚ\u1062\u1064ၥၵၽၾ\u1086\u1088\u108a\u108f",
    "ne": "\u0901\u0902\u0903अ-ऍएऐऑओ-नप-रलळव-ह\u093c-\u0945\u0947\u0948\u0949\u094b\u094c\u094dॐ",
    "nl": "a-zà-ïñ-ôöø-ýÿĳœ\u0300\u0301\u0302\u0308",
    "nn": "a-zàáã-êíñ-ôöøúüčđńŋšŧžǎ\u0300\u0301\u0302\u0308\u030a",
    "no": "a-zàáã-êíñ-ôöøúüčđńŋšŧžǎ\u0300\u0301\u0302\u0308\u030a",
    "oc": "a-zàáçèéëíïòóúü\u0300\u0301\u0308\u0327",
    "or": "\u0b01\u0b02\u0b03ଅ-ଋଏଐଓ-ନପ-ରଲଳଵ-ହ\u0b3c\u0b3e-\u0b43\u0b47\u0b48\u0b4b\u0b4c\u0b4dୟୱ",
    "pa": "\u0a01\u0a02\u0a03ਅ-ਊਏਐਓ-ਨਪ-ਰਲਵਸਹ\u0a3c\u0a3e-\u0a42\u0a47\u0a48\u0a4b\u0a4c\u0a4dੜ\u0a70-ੴ",
    "pl": "a-zßàâä-ëîïóôöùûüÿąćęłńœśźż\u0301\u0307\u0328",
    "ps": (
        "\u0621-\u0624\u0626-\u063a\u0641\u0642\u0644-\u0648\u064a-\u0652\u0654\u0670\u067c\u067e\u0681\u0685\u0686"
        "\u0689\u0693\u0696\u0698\u069a\u06a9\u06ab\u06af\u06bc\u06cc\u06cd\u06d0\u06d2"
    ),
    "pt": "a-zªºà-ïñ-öø-üÿāăēĕīĭōŏœūŭ\u0300-\u0303\u0308\u0327",
    "ro": "a-zàáâäåç-ëîñöüăşţșț\u0302\u0306\u0326\u0327",
    "ru": "\u0301\u0306\u0308а-яё",
    "rw": "a-z",
    "sa": "\u0901\u0902\u0903अ-ऍएऐऑओ-नप-रलळव-ह\u093c-\u0945\u0947\u0948\u0949\u094b\u094c\u094dॐ\u0951\u0952ॠ-\u0963",
    "sd": (
        "\u0621\u0622\u0626\u0627\u0628\u062a-\u063a\u0641\u0642\u0644-\u0648\u064a\u064e\u064f\u0650\u067a\u067b"
        "\u067d-\u0680\u0683\u0684\u0686\u0687\u068a\u068c\u068d\u068f\u0699\u06a6\u06a9\u06aa\u06af\u06b1\u06b3"
        "\u06bb\u06be"
    ),
    "si": "\u0d82\u0d83අ-ඖක-නඳ-රලව-ෆ\u0dca\u0dcf-\u0dd4\u0dd6\u0dd8-\u0ddf\u0df2\u0df3",
    "sk": "a-zàáâä-ïñ-ôöø-ýÿāăčďēĕīĭĺľňōŏőœŕřšťūŭűž\u0301\u0302\u0308\u030c",
    "sl": "a-zàáâä-ïñ-ôöø-üÿāăćčđēĕīĭōŏœšūŭž\u0301\u0308\u030c",
    "sn": "a-z",
    "so": "a-z",
    "sq": "a-zçë\u0308\u0327",
    "sr": "a-zåćčđšž\u0301\u0302а-яёђј-ћџ",
    "su": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏœūŭ\u0301",
    "sv": "a-zà-éëíîïñóöøúüÿāī\u0300\u0301\u0308\u030a",
    "sw": "a-z",
    "ta": "ஃஅ-ஊஎஏஐஒ-கஙசஜஞடணதநனபம-வஷஸஹ\u0bbe-\u0bc2\u0bc6\u0bc7\u0bc8\u0bca-\u0bcd\u0bd7",
    "te": "\u0c01\u0c02\u0c03అ-ఌఎఏఐఒ-నప-ళవ-హ\u0c3e-\u0c44\u0c46\u0c47\u0c48\u0c4a-\u0c4d\u0c55\u0c56ౠ-\u0c63",
    "tg": "\u0304\u0306\u0308а-яёғқҳҷӣӯ",
    "th": "ก-\u0e3aเ-\u0e4e",
    "tk": "a-zäçöüýňşžș\u0301\u0308\u030c\u0326\u0327",
    "tl": "a-zàáâèéêìíîñ-ôùúû\u0303",
    "tr": "a-zß-ïñ-ôöø-üÿāăēĕğīĭıōŏœşūŭ\u0302\u0306\u0307\u0308\u0326\u0327",
    "tt": "\u0306\u0308а-яёғҗқңүһәө",
    "uk": "ʼ\u0301\u0306\u0308а-яёєіїґ",
    "ur": (
        "\u0621-\u0624\u0626-\u063a\u0641\u0642\u0644-\u0648\u064a-\u0652\u0654\u0656\u0657\u0658\u0670"
        "\u0679-\u067e\u0686\u0688\u0691\u0698\u06a9\u06af\u06ba\u06be\u06c1\u06c2\u06c3\u06cc\u06d2"
    ),
    "uz": "a-zà-ïñ-ôöø-üÿāăēĕīĭōŏœūŭʻʼ\u0306\u0308а-яёўғқҳ",
    "vi": "a-zà-ãèéêìíò-õùúýăđĩũơư\u0300-\u0303\u0306\u0309\u031b\u0323ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    "wo": "a-zàãéëñóŋ\u0300\u0301\u0303\u0308",
    "xh": "a-z",
    "yi": "\u05b0-\u05b9\u05bb\u05bc\u05bf\u05c1\u05c2\u05d0-\u05ea\u05f2",
    "yo": "a-zàáâèéêìíîòóôùúûěńǎǐǒǔǹɔɛ\u0300\u0301\u0304\u030c\u0323\u0329ḿṣẹệọộ",
    "zu": "a-z",
}
"""Language code to its lower-case letters and combining marks in NFC; ``a-z`` is a range of code points.

The main and the auxiliary exemplar characters (the auxiliary ones occur in common foreign words, ``é`` in English)
of the Unicode CLDR, taken on 2026-11-21 from Google's ``gflanguages`` 0.7.11 (Apache-2.0), which carries the CLDR's
(Unicode-3.0) and completes it. Of a language with several scripts only the usual one is listed, except for ``bs``,
``sr`` and ``uz``, which have both Latin and Cyrillic. ``ms`` has the alphabet of ``id``.
"""

SCRIPTS: dict[str, frozenset[str]] = {
    "zh": frozenset({"Han"}),
    "yue": frozenset({"Han"}),
    "wuu": frozenset({"Han"}),
    "ja": frozenset({"Han", "Hiragana", "Katakana"}),
    "ko": frozenset({"Hangul", "Han"}),
}
"""Languages whose characters are too many to list: the scripts they may be written in."""

NO_SCRIPT = frozenset({"Common", "Inherited", "Unknown"})
"""Script values of characters that every script shares (Unicode Standard Annex 24)."""


@functools.lru_cache(maxsize=100_000)
def script_of(char: str) -> str:
    """The Unicode script of one character: ``Latin``, ``Devanagari``, ``Han``, …; marks and signs are in `NO_SCRIPT`.

    Raises:
        InputError: the package unicodedataplus is not installed.
    """
    return str(_lookup()(char))


@functools.cache
def _lookup() -> Callable[[str], str]:
    try:
        import unicodedataplus
    except ImportError as error:
        raise missing_extra("unicodedataplus", "audit") from error
    return unicodedataplus.script


@functools.cache
def alphabet(language: str) -> frozenset[str] | None:
    """The letters and marks of a language code, lower case; ``None`` where they are not listed."""
    listed = ALPHABETS.get(language)
    if listed is None:
        return None
    letters = []
    for position, char in enumerate(listed):
        if char == "-":
            letters += [chr(code) for code in range(ord(listed[position - 1]), ord(listed[position + 1]) + 1)]
        else:
            letters.append(char)
    return frozenset(letters)


@functools.lru_cache(maxsize=100_000)
def is_foreign(char: str, language: str) -> bool | None:
    """Whether a letter or mark is not written in a language; ``None`` where the alphabet is not known.

    Characters that are neither letter nor mark (digits, punctuation, spaces) are never foreign.
    """
    if unicodedata.category(char)[0] not in "LM" or char in "\u02bc\u02bb":
        return False
    scripts = SCRIPTS.get(language)
    if scripts is not None:
        return script_of(char) not in scripts | NO_SCRIPT
    letters = alphabet(language)
    return None if letters is None else not letters.issuperset(char.lower())
