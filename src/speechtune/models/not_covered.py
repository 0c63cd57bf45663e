"""Speech models of Transformers 5.23 that no family covers, each with the reason in one sentence."""

from __future__ import annotations

_NO_FAMILY = "Transformers has a loss for it, and no family is written for it yet"
_TORCHAUDIO = "its features in Transformers are made by torchaudio, which is not among the packages of speechtune"

_RNNT = "it is an RNN-T model, for which Transformers registers no loss; Parakeet TDT and CTC can be used"

REASONS: dict[str, str] = {
    "cohere_asr": f"Cohere ASR: {_NO_FAMILY}",
    "fun_asr_nano": f"Fun-ASR-Nano: {_TORCHAUDIO}",
    "glmasr": f"GLM-ASR: {_NO_FAMILY}",
    "granite_speech5_ctc": f"Granite-Speech 5: {_TORCHAUDIO}",
    "granite_speech_plus": f"Granite-Speech Plus: {_TORCHAUDIO}",
    "kyutai_speech_to_text": "Kyutai's models write text and silence in step with the sound; labels need a time for "
    "every word, which a transcript does not have",
    "moonshine_streaming": f"Moonshine Streaming: {_NO_FAMILY}; Moonshine (moonshine-tiny, moonshine-base) can be used",
    "lasr_ctc": f"LASR: {_NO_FAMILY}",
    "nemotron3_5_asr": f"Nemotron 3.5 ASR: {_RNNT}",
    "nemotron_asr_streaming": f"Nemotron ASR Streaming: {_RNNT}",
    "vibevoice_asr": f"VibeVoice-ASR: {_NO_FAMILY}",
    "voxtral_realtime": "Voxtral Realtime writes text and silence in step with the sound; labels need a time for every "
    "word, which a transcript does not have; Voxtral (voxtral-mini-3b) can be used",
}
"""By ``model_type``; the losses and packages are those of the library's own files."""


def reason_against(model_type: str) -> str | None:
    """Why a known kind of speech model cannot be loaded; ``None`` for one that is not known either."""
    return REASONS.get(model_type)
