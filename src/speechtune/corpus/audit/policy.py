"""The limits an audit judges by: one documented file, every number with its source.

``speechtune audit --show-policy`` prints the defaults with the sources as comments; ``--policy FILE`` overrides any of
them. Changing a limit never measures anything again.

Sources are cited as: *notebook C-2* (the contradiction of that number in the requirements notebook, part 1 section 16,
as it was settled there), *DA-4* and the like (its audit list), *children plan* (the children's competition),
*Pasketti* (the winners' code and write-ups of that competition), *measured* (speechtune's own trials on
speechocean762 and the planted-defect corpus, docs/audit.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import load_config

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DurationLimits(_Block):
    """Length of an utterance in seconds."""

    error_below_s: float = Field(
        0.1, description="Nothing can be said in less. Source: children plan, Phase 1 (keep 0.1 s <= d <= 30 s)."
    )
    warn_below_s: float = Field(
        0.5,
        description="Too short for most encoders' context; keep single words, check the rest. Source: children plan, "
        "Phase 1 (clips < 0.5 s are often valid single words but need attention).",
    )
    note_below_s: float = Field(
        1.0,
        description="Source: notebook C-2 calls < 1 s an error and < 2 s a drop; that would refuse every single-word "
        "recording, which the children plan keeps, so it is a note here.",
    )
    error_above_s: float = Field(
        30.0, description="Whisper's window; what is beyond it is cut off in silence. Source: notebook C-2, DA-6."
    )
    mismatch_warn_s: float = Field(
        0.25,
        description="Table and file may disagree by this much. Source: DA2 (part 3); measured: MP3 encoders add up to "
        "0.14 s at 16 kHz.",
    )


class FormatLimits(_Block):
    """Container, rate, depth, channels."""

    sample_rate_warn_below_hz: int = Field(16_000, description="Lower loses consonants for good. Source: DA-1.")
    sample_rate_error_below_hz: int = Field(8_000, description="Below telephone quality. Source: DA-1.")
    bit_depth_warn_below: int = Field(16, description="8-bit audio has audible quantisation noise. Source: DA-2.")
    mp3_bitrate_warn_below_kbps: float = Field(
        32.0,
        description="Lossy audio (MP3, AAC, Vorbis) below this, scaled by rate and channels to 16 kHz mono. Source: "
        "DA-4 asks 128 kbps, which is more than half of what 16 kHz mono PCM needs; notebook E-7 asks to scale it.",
    )
    opus_bitrate_warn_below_kbps: float = Field(
        12.0, description="Opus below this is narrow-band. Source: RFC 6716, section 2.1.1 (wideband from 16 kbit/s)."
    )
    phase_cancellation_error_above_db: float = Field(
        12.0, description="Level lost by averaging the channels. Source: DA-3; limit measured (unrelated: 3 dB)."
    )


class BandwidthLimits(_Block):
    """Highest frequency that carries speech, whatever the sample rate promises."""

    warn_below_hz: float = Field(
        4_300.0, description="Telephone band (300-3400 Hz) upsampled to 16 kHz. Source: DA-1, ITU-T G.711; measured."
    )


class LevelLimits(_Block):
    """Loudness, clipping, offset."""

    warn_below_lufs: float = Field(
        -45.0,
        description="So quiet that 16-bit noise and gain steps matter. Source: DA-9 asks -30 to -20 dB; measured.",
    )
    note_below_lufs: float = Field(-38.0, description="Quieter than the usual range. Source: DA-9; measured.")
    note_above_lufs: float = Field(-10.0, description="Louder than speech is recorded. Source: DA-9; measured.")
    clipped_warn_above_frac: float = Field(
        0.001, description="Share of samples that lie on a flattened top. Source: DA-9, DA-21; limit measured."
    )
    clipped_error_above_frac: float = Field(0.02, description="Heavy clipping. Source: DA-9, DA-21; limit measured.")
    dc_offset_warn_above: float = Field(0.02, description="Of full scale; a faulty input. Limit measured.")


class SnrLimits(_Block):
    """Signal-to-noise ratio (estimated)."""

    error_below_db: float = Field(
        3.0,
        description="Notebook C-4 fails < 15 dB. That number is for clean studio plans; the estimate of real rooms is "
        "lower, and noisy speech is what models must learn, so only speech buried in noise is an error. Measured.",
    )
    warn_below_db: float = Field(15.0, description="Source: notebook C-4 (fail < 15 dB), as a warning.")
    note_below_db: float = Field(20.0, description="Source: notebook C-4 (15-20 dB borderline).")


class SilenceLimits(_Block):
    """Where nobody speaks."""

    lead_warn_above_s: float = Field(2.0, description="Leading silence; trim it. Source: DA-12; limit measured.")
    trail_warn_above_s: float = Field(2.0, description="Trailing silence; trim it. Source: DA-12; limit measured.")
    pause_warn_above_s: float = Field(
        5.0,
        description="Inner pause; models fill long pauses with invented words. Source: P9 (1-3 s safe, 5-10 s risk).",
    )
    pause_note_above_s: float = Field(3.0, description="Inner pause beyond the safe range. Source: P9.")
    speech_error_below_frac: float = Field(
        0.02, description="No speech found although there is a text. Limit measured (Silero VAD)."
    )
    speech_warn_below_frac: float = Field(0.15, description="Mostly silence. Limit measured (Silero VAD).")
    empty_text_speech_above_frac: float = Field(
        0.3, description="Speech in a clip whose text is empty. Limit measured (Silero VAD)."
    )


class RateLimits(_Block):
    """Speaking rate: the cheapest test of whether text and audio belong together."""

    chars_per_s_error_above: float = Field(
        30.0, description="Beyond any speaker; text too long for the audio. Measured."
    )
    chars_per_s_warn_above: float = Field(
        20.0, description="Source: Pasketti (one winner's data set class drops > 20 characters per second)."
    )
    words_per_s_warn_above: float = Field(
        6.0, description="Very fast adult speech is 5 to 6 words per second. Measured."
    )
    speech_chars_per_s_warn_below: float = Field(
        2.0, description="Characters per second of speech found; less means words without text. Limit measured."
    )
    speech_chars_per_s_error_below: float = Field(0.8, description="As above, beyond doubt. Limit measured.")
    min_speech_s: float = Field(
        1.5,
        description="The lower limits are asked only of clips with this much speech; a drawn-out word is slow. "
        "Measured.",
    )


class TextLimits(_Block):
    """What transcripts may hold."""

    max_tokens: int = Field(
        448, description="Label length a Whisper decoder can take, special tokens included. Source: part 2, C8."
    )
    language_confidence: float = Field(
        0.8, description="How sure the detector must be before a text is said to be in another language. Measured."
    )
    language_min_letters: int = Field(20, description="Shorter texts are not judged for language. Measured.")
    foreign_letters_warn_above: int = Field(
        3, description="Different letters outside the language's alphabet; up to this many may be a name. Measured."
    )
    conventions_note_above_frac: float = Field(
        0.05,
        description="Digits, or texts in a casing that is not the corpus's own, are a note per utterance; from this "
        "share on the corpus is said to mix conventions. Source: DA-18, D9.",
    )


class ContentLimits(_Block):
    """Heuristics about who and what is heard."""

    music_warn_above: float = Field(0.5, description="Music score, 0 to 1. Source: DA-18; limit measured.")
    several_speakers_warn_above: float = Field(0.5, description="Score, 0 to 1. Source: DA-18; limit measured.")


class DuplicateLimits(_Block):
    """When two recordings or texts are nearly the same."""

    audio_distance: float = Field(
        0.3,
        description="Share of differing fingerprint bits. Source: Haitsma and Kalker 2002 (0.35 for long blocks); "
        "measured: unrelated clips differ in about 0.45.",
    )
    text_similarity: float = Field(
        0.9, description="1 less the normalised edit distance of two texts without case and punctuation. Measured."
    )


class BalanceLimits(_Block):
    """The corpus as a whole."""

    duplicate_text_note_above_frac: float = Field(
        0.2, description="Share of utterances whose text another one has (read prompts repeat). Measured."
    )
    speaker_share_warn_above_frac: float = Field(
        0.5, description="Share of the audio of one speaker, where there are several. Source: DA-19."
    )
    group_share_warn_above_frac: float = Field(
        0.75,
        description="Share of the audio of one age group, gender or source. Source: children plan, step 1.3 "
        "(77 % aged 8-11 calls for weighted sampling).",
    )
    group_share_note_below_frac: float = Field(0.02, description="A group so small that its WER says little. Measured.")
    same_length_warn_above_frac: float = Field(
        0.5, description="Share of clips within 50 ms of one length: cut by a clock, not at pauses. Source: DA-7."
    )
    same_length_min_clips: int = Field(20, description="Fewer clips are not judged for equal lengths.")
    level_spread_note_above_db: float = Field(
        20.0, description="Spread (95th less 5th percentile) of loudness. Source: DA-20; limit measured."
    )
    oov_warn_above_frac: float = Field(
        0.2, description="Share of a split's running words that train never has. Measured (5-15 % is usual at 10 h)."
    )
    prompt_leak_warn_above_frac: float = Field(
        0.2, description="Share of a test split's texts that are also in train: the score flatters. Measured."
    )
    bandwidth_gap_note_above_hz: float = Field(
        1_500.0,
        description="Median bandwidth of train and of another split differ by more: channels do not match. "
        "Source: children plan, step 1.2; limit measured.",
    )


class VolumeLimits(_Block):
    """How much there is."""

    error_below_h: float = Field(0.25, description="Below the smallest plan (16-50 minutes). Source: notebook C-8.")
    warn_below_h: float = Field(2.0, description="Below the practical minimum. Source: notebook C-8.")
    note_below_h: float = Field(10.0, description="Risk of overfitting. Source: DA8 (part 3), notebook C-8.")
    eval_error_below_min: float = Field(15.0, description="Minutes of dev or test. Source: notebook C-9.")
    eval_warn_below_min: float = Field(60.0, description="Minutes of dev or test. Source: notebook C-9.")
    speakers_note_below: int = Field(
        10, description="Speakers, from 10 h on twice, from 200 h on five times as many. Source: DA-19, DA8 (part 3)."
    )


class LabelNoiseLimits(_Block):
    """How many transcripts are probably wrong."""

    warn_above_frac: float = Field(
        0.05, description="5-15 % label errors are tolerable only at 100 000 h and more. Source: DA-25."
    )
    note_above_frac: float = Field(0.005, description="Ground truth should have < 0.5 % errors. Source: D14 (part 2).")


class Policy(_Block):
    """Every limit of an audit, and what to do with a check that does not suit a corpus."""

    duration: DurationLimits = Field(default_factory=DurationLimits)
    format: FormatLimits = Field(default_factory=FormatLimits)
    bandwidth: BandwidthLimits = Field(default_factory=BandwidthLimits)
    level: LevelLimits = Field(default_factory=LevelLimits)
    snr: SnrLimits = Field(default_factory=SnrLimits)
    silence: SilenceLimits = Field(default_factory=SilenceLimits)
    rate: RateLimits = Field(default_factory=RateLimits)
    text: TextLimits = Field(default_factory=TextLimits)
    content: ContentLimits = Field(default_factory=ContentLimits)
    duplicates: DuplicateLimits = Field(default_factory=DuplicateLimits)
    balance: BalanceLimits = Field(default_factory=BalanceLimits)
    volume: VolumeLimits = Field(default_factory=VolumeLimits)
    label_noise: LabelNoiseLimits = Field(default_factory=LabelNoiseLimits)
    disabled: list[str] = Field(default_factory=list, description="Checks that are not made, by name.")
    severity: dict[str, Severity] = Field(
        default_factory=dict, description="Report a check at this severity whatever its own is, as {check: note}."
    )


def load_policy(path: Path | None) -> Policy:
    """The policy of a YAML file laid over the defaults (``None``: the defaults).

    Raises:
        InputError: the file is missing, is not YAML, or holds an unknown key or a wrong value.
    """
    return load_config(Policy, path)


def limit(policy: Policy, key: str) -> float:
    """The number at a dotted key such as ``snr.warn_below_db``."""
    value: Any = policy
    for part in key.split("."):
        value = getattr(value, part)
    assert isinstance(value, int | float), key
    return value


def policy_as_yaml(policy: Policy) -> str:
    """The policy as a YAML file that `load_policy` reads back, with meaning and source of each limit as comments."""
    lines = ["# The audit policy of speechtune. Keep only the lines you change."]
    for name, field in Policy.model_fields.items():
        value = getattr(policy, name)
        if isinstance(value, BaseModel):
            lines += ["", f"{name}:  # {type(value).__doc__}"]
            for key, inner in type(value).model_fields.items():
                lines += [*_wrapped(inner.description or "", "  "), f"  {key}: {getattr(value, key)}"]
        else:
            lines += ["", *_wrapped(field.description or "", ""), f"{name}: {_plain(value)}"]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return f"[{', '.join(value)}]"


def _wrapped(text: str, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 116, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
