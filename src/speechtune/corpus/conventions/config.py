"""What is written how: the conventions that every transcript of a language follows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Keep = Literal["keep"]


class Replacement(BaseModel):
    """One entry of the general replacement table."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    source: str = Field(alias="from", min_length=1, description="What stands in the transcript.")
    target: str = Field("", alias="to", description="What shall stand there; empty: nothing.")
    match_case: bool = Field(
        False,
        description="Only this letter case matches. Otherwise any case does, and a target in small letters takes over "
        "the case of what it replaces (Colour, COLOUR).",
    )
    whole_words: bool = Field(True, description="Only where no letter, digit or mark touches either end.")

    @field_validator("source", "target", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("yes, no, on and off are truth values in YAML: put the word in quotes")
        return str(value) if isinstance(value, int | float) else value


class TextConventions(BaseModel):
    """How transcripts are written. The defaults change nothing that can be heard or that a reader would notice.

    No rule corrects a word: ``goed`` and ``tooths`` stay (developmental forms are part of the label in children's
    speech: sources/children_competition.md, label characteristics). Only the tables, which you write, change spelling.
    """

    model_config = ConfigDict(extra="forbid")

    unicode: Literal["NFC", "keep"] = Field(
        "NFC", description="NFC: one code point sequence for one letter. Tokenisers split the two forms differently."
    )
    invisible: Literal["remove", "keep"] = Field(
        "remove",
        description="Zero-width characters, soft hyphens and direction marks. The joiners ZWJ and ZWNJ stay where they "
        "change what is seen: between letters or marks of Indic, Arabic, Mongolian or Khmer script, and inside emoji.",
    )
    whitespace: Literal["single", "keep"] = Field(
        "single", description="single: every run of blanks and line breaks is one blank, none at the ends."
    )
    quotes: Literal["keep", "ascii", "remove"] = Field(
        "keep",
        description="ascii: typographic quotes and apostrophes become \" and '. remove: no double quotes at all.",
    )
    dashes: Literal["keep", "hyphen"] = Field(
        "keep", description="hyphen: every dash and the minus sign become -. The Hebrew maqaf has its own key."
    )
    ellipsis: Literal["keep", "dots", "single"] = Field(
        "keep", description="dots: the character … becomes three dots. single: three dots become …."
    )
    digits: Literal["keep", "ascii"] = Field(
        "keep", description="ascii: digits of other scripts (Devanagari, Arabic, full width) become 0-9."
    )
    hebrew_niqqud: Literal["keep", "remove"] = Field(
        "keep",
        description="Hebrew vowel points and cantillation marks. remove: letters only, as running text is written.",
    )
    hebrew_maqaf: Literal["keep", "hyphen", "space"] = Field("keep", description="The Hebrew hyphen (U+05BE).")
    hebrew_gershayim: Literal["keep", "hebrew", "ascii"] = Field(
        "keep",
        description="The marks of Hebrew abbreviations. hebrew: a quote or apostrophe between or behind Hebrew letters "
        "becomes U+05F4 or U+05F3. ascii: those become \" and '.",
    )
    danda: Literal["keep", "period", "remove"] = Field(
        "keep", description="The Indic full stops (U+0964, U+0965). period: they become a full stop behind the word."
    )
    noise_tags: Literal["keep", "remove", "drop_row"] = Field(
        "keep", description="What noise_words in brackets of any kind mark: [noise], <laughter>, (coughs)."
    )
    noise_words: list[str] = Field(
        default_factory=lambda: [
            *("noise", "noises", "laughter", "laughs", "laughing", "laugh", "cough", "coughs", "coughing", "breath"),
            *("breathing", "inhale", "exhale", "sigh", "sighs", "sneeze", "music", "applause", "silence", "pause"),
            *("background noise", "background", "click", "static", "beep", "nsn", "spn", "lipsmack", "smack", "sniff"),
        ],
        description="What a noise tag may hold, in any letter case, besides blanks, _ and -.",
    )
    unintelligible: Literal["keep", "remove", "drop_row"] = Field(
        "keep",
        description="Tags that stand for speech nobody could write down (unintelligible_words in brackets). Prefer "
        "drop_row: remove teaches a model to skip what was said.",
    )
    unintelligible_words: list[str] = Field(
        default_factory=lambda: [
            *(
                "unk",
                "unintelligible",
                "inaudible",
                "unclear",
                "indistinct",
                "crosstalk",
                "overlap",
                "foreign",
                "xxx",
                "???",
            ),
        ],
        description="What such a tag may hold.",
    )
    fillers: Literal["keep", "remove"] = Field(
        "keep",
        description="Words of hesitation (filler_words). Keep them for verbatim transcripts; remove them where the "
        "labels you compete on omit them (children_competition.md).",
    )
    filler_words: list[str] = Field(
        default_factory=lambda: ["um", "umm", "uhm", "uh", "uhh", "erm", "hm", "hmm", "mm", "mmm", "mhm"],
        description="Whole words, any case. Default: English (those that Whisper's English normaliser removes, and "
        "their longer spellings); give each language its own under languages.",
    )
    partial_words: Literal["keep", "remove"] = Field(
        "keep",
        description="Words broken off with a hyphen at the end: wh- what. Also removes pre- in 'pre- and post-'.",
    )
    repetitions: Literal["keep", "remove"] = Field(
        "keep", description="remove: one or two words said again at once are kept once ('I I want', 'I want I want')."
    )
    repetition_exceptions: list[str] = Field(
        default_factory=lambda: [
            *("very", "no", "yes", "so", "that", "had", "really", "ha", "bye", "many", "far", "more", "again", "knock"),
            *("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        ],
        description="Words whose repetition is kept: emphasis, grammar, and digits read aloud.",
    )
    acronyms: dict[str, str] = Field(
        default_factory=dict,
        description="How acronyms are written: {GPU: G P U}, {G P U: GPU} or {GPU: GPU (G-P-U)}. Case matters.",
    )
    code_switch: dict[str, str] = Field(
        default_factory=dict,
        description="One spelling for each word of another language: {דיפלוי: deploy}. Any case matches.",
    )
    replace: list[Replacement] = Field(
        default_factory=list, description="Any other replacement: [{from: ..., to: ...}]."
    )
    numbers: Literal["keep", "spell"] = Field(
        "keep",
        description="spell: whole numbers, decimals with a point and English ordinals in words (num2words; Indian "
        "languages: indic_numtowords). What could be read in several ways stays in digits and is counted: times, "
        "dates, fractions, codes, a leading zero, symbols such as % and $.",
    )
    years: Literal["keep", "year", "number"] = Field(
        "keep",
        description="With numbers: spell, what 1100 to 2099 without a separator is: a year, a number, or unclear.",
    )
    punctuation: Literal["keep", "strip", "sentence"] = Field(
        "keep",
        description="strip: none, except inside words and numbers (don't, well-known, 1,234.5). sentence: only "
        ". , ? ! and the same marks of other scripts.",
    )
    casing: Literal["keep", "lower", "upper", "sentence"] = Field(
        "keep",
        description="sentence: small letters except the first of a sentence, English I, and what the tables say; for "
        "transcripts that are all capitals. Targets of the tables keep their own case.",
    )

    @field_validator("acronyms", "code_switch", mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key, target in value.items():
                if isinstance(key, bool) or isinstance(target, bool):
                    raise ValueError("yes, no, on and off are truth values in YAML: put the word in quotes")
            return {str(key): str(target) for key, target in value.items()}
        return value

    @model_validator(mode="after")
    def _no_empty_words(self) -> TextConventions:
        for name in ("noise_words", "unintelligible_words", "filler_words", "repetition_exceptions"):
            if any(not word.strip() for word in getattr(self, name)):
                raise ValueError(f"{name} holds an empty word")
        if any(not key.strip() for key in (*self.acronyms, *self.code_switch)):
            raise ValueError("a table replaces the empty word")
        return self

    def merged(self, other: TextConventions) -> TextConventions:
        """These conventions with every key that was written down in ``other``."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})
