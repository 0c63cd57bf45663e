"""Qwen3-ASR's chat: the prompt that audio and context make up, and the answer that a transcript becomes.

Facts from Qwen's ``qwen_asr`` package (inference and fine-tuning) and Transformers' ``Qwen3ASRProcessor``: the answer
is ``language English<asr_text>TEXT<|im_end|>``; where the language is known beforehand, inference puts everything up to
``<asr_text>`` behind the prompt; ``language None`` says that it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from speechtune.core.errors import InputError
from speechtune.models.qwen3_asr_config import LanguageTag

MARKER, END = "<asr_text>", "<|im_end|>"

CHAT_TEMPLATE = """\
{%- macro texts(role) -%}
{%- for m in messages if m.role == role -%}
{%- if m.content is string -%}{{- m.content -}}
{%- else -%}{%- for part in m.content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{{- '<|im_start|>system\\n' + texts('system') + '<|im_end|>\\n<|im_start|>user\\n' -}}
{%- for m in messages if m.content is not string -%}
{%- for part in m.content if part.type == 'audio' -%}{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}{%- endfor -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- for m in messages if m.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' + texts('assistant') + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""The chat of Qwen3-ASR, for checkpoints of the ``qwen-asr`` layout, whose own template knows no assistant turn."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands around a transcript: context, English name of the language (``None``: not given), where its tag is.

    ``language_tag``: see `speechtune.models.qwen3_asr_config.Qwen3AsrConfig`.
    """

    context: str = ""
    language: str | None = None
    language_tag: LanguageTag = "answer"

    def to_json(self) -> dict[str, Any]:
        """What ``speechtune.json`` records."""
        return asdict(self)

    @property
    def tag(self) -> str:
        """The part of the answer before the text."""
        return f"language {self.language}{MARKER}"

    def with_more(self, words: Sequence[str]) -> Prompt:
        """The same with words added to the context."""
        return replace(self, context=" ".join([*([self.context] if self.context else []), *words]))


class ChatFormat:
    """Prompts and answers as tokens, for one checkpoint's tokenizer and chat template.

    Raises:
        InputError: the tokenizer lacks a token of the format.
    """

    def __init__(self, tokenizer: Any, template: str, audio_token: int) -> None:
        self.tokenizer, self.template, self.audio_token = tokenizer, template, audio_token
        self.marker = self._single(MARKER)
        self.end = self._single(END)
        self._known: dict[tuple[Prompt, bool], list[int]] = {}

    def _single(self, text: str) -> int:
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) != 1:
            raise InputError(f"the tokenizer has no token {text}: take that of a Qwen3-ASR checkpoint")
        return int(tokens[0])

    def prompt(self, prompt: Prompt, with_tag: bool) -> list[int]:
        """The prompt's tokens with one place for the audio; with the language's tag behind, if asked for and known.

        Raises:
            InputError: the template or the context leave not exactly one place for the audio.
        """
        key = prompt, with_tag
        if key not in self._known:
            turns: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
            if prompt.context:
                turns.insert(0, {"role": "system", "content": [{"type": "text", "text": prompt.context}]})
            rendered = self.tokenizer.apply_chat_template(
                turns, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
            tag = prompt.tag if with_tag and prompt.language else ""
            tokens = [int(one) for one in self.tokenizer.encode(rendered + tag, add_special_tokens=False)]
            places = tokens.count(self.audio_token)
            if places != 1:
                raise InputError(
                    f"the chat template of this model leaves {places} places for the audio and not one: look at "
                    "its chat_template, and for special tokens in model.qwen3_asr.context"
                )
            self._known[key] = tokens
        return list(self._known[key])

    def example(self, prompt: Prompt, text: str) -> tuple[list[int], int]:
        """Tokens of a training example with one place for the audio, and how many of them are given."""
        given_tag = prompt.language_tag == "prompt" and prompt.language is not None
        given = self.prompt(prompt, given_tag)
        answer = text.strip() if given_tag else prompt.tag + text.strip()
        return [*given, *self.tokenizer.encode(answer, add_special_tokens=False), self.end], len(given)

    def expand(self, tokens: Sequence[int], audio_tokens: int) -> list[int]:
        """The tokens with as many places for the audio as the clip takes."""
        place = list(tokens).index(self.audio_token)
        return [*tokens[:place], *[self.audio_token] * audio_tokens, *tokens[place + 1 :]]

    def text(self, tokens: Sequence[int], ends: frozenset[int]) -> str:
        """The transcript in an answer: what follows the last tag, without special tokens."""
        spoken = [int(token) for token in tokens if token not in ends]
        if self.marker in spoken:
            spoken = spoken[len(spoken) - spoken[::-1].index(self.marker) :]
        return self.tokenizer.decode(spoken, skip_special_tokens=True).strip()


def language_name(language: str | None) -> str | None:
    """The English name that Qwen3-ASR writes for a language: ``en`` to ``English``, ``he`` to ``Hebrew``.

    Languages that the released models do not know (Hebrew) have the name that Whisper's tokenizer knows them by.

    Raises:
        InputError: a code that neither knows.
    """
    from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if language is None:
        return None
    code = language.strip().lower()
    names = {**{short: name.title() for short, name in LANGUAGES.items()}, **LANGUAGE_CODE_TO_NAME}
    primary = code.replace("_", "-").split("-")[0]
    if primary in names:
        return names[primary]
    if code.title() in names.values():
        return code.title()
    raise InputError(f"the language {language!r} is not known: give a code as in en, or an English name as in English")
