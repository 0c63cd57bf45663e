"""Every check that is made of each utterance. The columns are described in docs/audit.md."""

from __future__ import annotations

from speechtune.corpus.audit.checks import Check
from speechtune.corpus.audit.text_checks import TEXT

_LIKELY_LABEL = "The model is taught that these sounds are other words; a few per cent of such labels cap the accuracy."
_INNER = "speech_frac > 0 AND longest_silence_s > greatest(lead_silence_s, trail_silence_s)"
_CUT = "Remove it, or record it again."

DECODABILITY = tuple(
    Check(
        name=name,
        title=title,
        rules={"error": f"audio_error = '{reason}'"},
        meaning="It cannot be learnt from; many trainers skip it in silence or put silence in its place.",
        remedy=remedy,
        source="DA-14; reasons of speechtune.audio.io",
    )
    for name, reason, title, remedy in (
        ("audio_missing", "missing audio", "the audio file does not exist", "Restore the file, or remove the row."),
        ("audio_unreadable", "unreadable audio", "the audio cannot be decoded", "Copy it again from its source."),
        ("audio_truncated", "truncated audio", "the file ends before its own header says", "Copy it again."),
        ("audio_empty", "empty audio", "the file holds no samples", _CUT),
        ("audio_non_finite", "non-finite audio", "the file holds NaN or infinite samples", "Export it again."),
        ("span_outside_audio", "span outside audio", "the span lies outside the file", "Correct start_s and end_s."),
    )
)

DURATION = (
    Check(
        name="duration_short",
        title="very short",
        rules={
            "error": "duration_s < {duration.error_below_s}",
            "warning": "duration_s < {duration.warn_below_s}",
            "note": "duration_s < {duration.note_below_s}",
        },
        meaning="Short clips carry little context and tempt models to invent words.",
        remedy="Remove the errors; keep single words that are right; join neighbours of one speaker.",
        value="duration_s",
        worst="low",
    ),
    Check(
        name="duration_long",
        title="longer than the model's window",
        rules={"error": "duration_s > {duration.error_above_s}"},
        meaning="What lies beyond the window is cut off while its words stay in the label: the model learns to invent.",
        remedy="Segment it (speechtune prepare cuts by forced alignment).",
        value="duration_s",
    ),
    Check(
        name="duration_mismatch",
        title="the table and the file disagree about the length",
        rules={"warning": "abs(duration_s - table_duration_s) > {duration.mismatch_warn_s}"},
        meaning="The file was replaced or cut after the table was made; the text may belong to other audio.",
        remedy="Import the corpus again, and look whether text and audio still agree.",
        value="abs(duration_s - table_duration_s)",
    ),
)

FORMAT = (
    Check(
        name="sample_rate_low",
        title="low sample rate",
        rules={
            "error": "sample_rate_hz < {format.sample_rate_error_below_hz}",
            "warning": "sample_rate_hz < {format.sample_rate_warn_below_hz}",
        },
        meaning="Consonants lie above 4 kHz; upsampling does not bring them back.",
        remedy="Use it only if the target audio is like that; else record at 16 kHz or more.",
        value="sample_rate_hz",
        worst="low",
    ),
    Check(
        name="bit_depth_low",
        title="fewer than 16 bits",
        rules={"warning": "bit_depth < {format.bit_depth_warn_below}"},
        meaning="Quantisation noise covers quiet speech.",
        remedy="Go back to the 16-bit original.",
        value="bit_depth",
        worst="low",
    ),
    Check(
        name="bitrate_low",
        title="strongly compressed",
        rules={
            "warning": "(codec = 'opus' AND bitrate_kbps / channels < {format.opus_bitrate_warn_below_kbps}) OR "
            "(codec = 'lossy' AND bitrate_kbps / channels * 16000.0 / sample_rate_hz "
            "< {format.mp3_bitrate_warn_below_kbps})"
        },
        meaning="Compression artefacts differ from what the model hears in use.",
        remedy="Prefer the uncompressed original.",
        value="bitrate_kbps",
        worst="low",
    ),
    Check(
        name="several_channels",
        title="more than one channel",
        rules={"note": "channels > 1"},
        meaning="Channels are averaged; a second voice or noise on one of them is mixed in.",
        remedy="Keep the channel of the speaker.",
        value="channels",
        source="DA-3",
    ),
    Check(
        name="phase_cancellation",
        title="channels cancel each other",
        rules={"error": "channels > 1 AND phase_cancellation_db > {format.phase_cancellation_error_above_db}"},
        meaning="Averaging opposite phases removes the voice; the model is trained on the residue.",
        remedy="Keep one channel, or invert one before mixing.",
        value="phase_cancellation_db",
    ),
    Check(
        name="bandwidth_low",
        title="upsampled from a lower rate",
        rules={"warning": "bandwidth_hz < {bandwidth.warn_below_hz} AND sample_rate_hz >= 16000 AND NOT is_silent"},
        meaning="The rate promises frequencies that are not there; mixed with full-band audio it is a second channel.",
        remedy="Find the original, or keep it and mark its source if the target is telephone audio.",
        value="bandwidth_hz",
        worst="low",
    ),
)

LEVEL = (
    Check(
        name="silent",
        title="digital silence",
        rules={"error": "is_silent"},
        meaning="With a text it teaches the model to invent words where nothing is heard.",
        remedy="Remove it, or give it an empty text on purpose.",
        value="rms_dbfs",
        worst="low",
        source="children plan (hallucination on silence)",
    ),
    Check(
        name="level_low",
        title="very quiet",
        rules={
            "warning": "level_lufs < {level.warn_below_lufs} AND NOT is_silent",
            "note": "level_lufs < {level.note_below_lufs} AND NOT is_silent",
        },
        meaning="Level differences between clips are learnt as differences between speakers.",
        remedy="Normalise the level (speechtune prepare).",
        value="level_lufs",
        worst="low",
    ),
    Check(
        name="level_high",
        title="very loud",
        rules={"note": "level_lufs > {level.note_above_lufs}"},
        meaning="Often compressed or distorted on the way.",
        remedy="Normalise the level and listen for distortion.",
        value="level_lufs",
    ),
    Check(
        name="clipping",
        title="clipped",
        rules={
            "error": "clipped_frac > {level.clipped_error_above_frac}",
            "warning": "clipped_frac > {level.clipped_warn_above_frac}",
        },
        meaning="Flattened peaks spread energy over all frequencies and mask consonants.",
        remedy="Record again at a lower gain; keep a share only if the target audio clips too.",
        value="clipped_frac",
    ),
    Check(
        name="dc_offset",
        title="constant offset",
        rules={"warning": "abs(dc_offset) > {level.dc_offset_warn_above}"},
        meaning="A faulty input; the first mel band and level measures are wrong.",
        remedy="High-pass filter (speechtune prepare), repair the input.",
        value="abs(dc_offset)",
    ),
    Check(
        name="dropout",
        title="samples lost inside the recording",
        rules={"warning": "dropouts > 0"},
        meaning="Words lose their middle while the label keeps them.",
        remedy="Record again; look for a USB or network fault.",
        value="dropout_s",
        source="DA-23; audio/measures.py",
    ),
    Check(
        name="hum",
        title="mains hum",
        rules={"note": "hum_mains_hz IS NOT NULL"},
        meaning="A cue for the recording site; models may learn site instead of speech.",
        remedy="Notch or high-pass filter.",
        value="hum_prominence_db",
        source="DA-23; audio/measures.py",
    ),
    Check(
        name="snr_low",
        title="noisy",
        rules={
            "error": "snr_db < {snr.error_below_db} AND NOT is_silent",
            "warning": "snr_db < {snr.warn_below_db} AND NOT is_silent",
            "note": "snr_db < {snr.note_below_db} AND NOT is_silent",
        },
        meaning="Labels of speech buried in noise are guesses; moderate noise is what a robust model needs.",
        remedy="Check the labels of the errors; keep the rest if the target is noisy.",
        value="snr_db",
        worst="low",
    ),
)

SILENCE = (
    Check(
        name="lead_silence",
        title="long silence before the speech",
        rules={"warning": "lead_silence_s > {silence.lead_warn_above_s} AND speech_frac > 0"},
        meaning="Wasted computation, and a place where models invent words.",
        remedy="Trim it (speechtune prepare).",
        value="lead_silence_s",
    ),
    Check(
        name="trail_silence",
        title="long silence after the speech",
        rules={"warning": "trail_silence_s > {silence.trail_warn_above_s} AND speech_frac > 0"},
        meaning="Models trained on it repeat or invent words at the end.",
        remedy="Trim it (speechtune prepare).",
        value="trail_silence_s",
    ),
    Check(
        name="long_pause",
        title="long pause inside",
        rules={
            "warning": f"longest_silence_s > {{silence.pause_warn_above_s}} AND {_INNER}",
            "note": f"longest_silence_s > {{silence.pause_note_above_s}} AND {_INNER}",
        },
        meaning="Pauses beyond a few seconds are where recognisers hallucinate.",
        remedy="Cut the recording at the pause.",
        value="longest_silence_s",
    ),
    Check(
        name="no_speech",
        title="a text but no speech",
        rules={
            "error": "words > 0 AND speech_frac < {silence.speech_error_below_frac} AND NOT is_silent",
            "warning": "words > 0 AND speech_frac < {silence.speech_warn_below_frac} AND NOT is_silent",
        },
        meaning=_LIKELY_LABEL,
        remedy="Listen; remove it, or give it an empty text on purpose.",
        value="speech_frac",
        worst="low",
    ),
    Check(
        name="text_missing",
        title="speech but an empty text",
        rules={"error": "words = 0 AND speech_frac > {silence.empty_text_speech_above_frac}"},
        meaning="The model is taught to leave speech out.",
        remedy="Transcribe it, or remove it.",
        value="speech_frac",
    ),
)

RATE = (
    Check(
        name="rate_fast",
        title="more text than can be said in the time",
        rules={
            "error": "chars_per_s > {rate.chars_per_s_error_above}",
            "warning": "chars_per_s > {rate.chars_per_s_warn_above} OR words_per_s > {rate.words_per_s_warn_above} "
            "OR rate_verdict = 'too fast'",
        },
        meaning="The text belongs to more audio than is there: the model learns to invent the rest.",
        remedy="Compare text and audio; cut the text, or restore the audio.",
        value="chars_per_s",
    ),
    Check(
        name="rate_slow",
        title="speech without text",
        rules={
            "error": "words > 0 AND speech_s >= {rate.min_speech_s} "
            "AND chars / speech_s < {rate.speech_chars_per_s_error_below}",
            "warning": "words > 0 AND speech_s >= {rate.min_speech_s} "
            "AND chars / speech_s < {rate.speech_chars_per_s_warn_below}",
        },
        meaning="Part of what is said is not in the text: the model learns to leave words out.",
        remedy="Complete the text, or cut the audio to it.",
        value="chars / speech_s",
        worst="low",
    ),
    Check(
        name="tokens_many",
        title="more tokens than the decoder takes",
        rules={"error": "tokens_most > {text.max_tokens}"},
        meaning="The label is cut or training fails.",
        remedy="Segment it, or remove it.",
        value="tokens_most",
    ),
)

CONTENT = (
    Check(
        name="several_speakers",
        title="probably several speakers",
        rules={"note": "several_speakers_score > {content.several_speakers_warn_above}"},
        meaning="Words of a second speaker are in the audio but often not in the text.",
        remedy="Listen; cut to one speaker or transcribe both.",
        value="several_speakers_score",
    ),
    Check(
        name="music",
        title="probably music",
        rules={"warning": "music_score > {content.music_warn_above}"},
        meaning="Sung or accompanied speech is a different task.",
        remedy="Remove it unless the target has it.",
        value="music_score",
    ),
)

DUPLICATES = (
    Check(
        name="label_conflict",
        title="the same audio with different texts",
        rules={"error": "label_conflict", "warning": "near_label_conflict"},
        meaning="At least one of the labels is wrong, and the model cannot learn either.",
        remedy="Listen and keep the right one.",
        source="issue section 1 (high-severity label conflict)",
    ),
    Check(
        name="duplicate_audio",
        title="the same audio again",
        rules={"warning": "duplicate_audio_of IS NOT NULL"},
        meaning="It counts twice in training; across splits it inflates the score.",
        remedy="Keep one.",
        source="DP (deduplication); identical samples",
    ),
    Check(
        name="near_duplicate_audio",
        title="nearly the same audio again",
        rules={"warning": "near_duplicate_audio_of IS NOT NULL"},
        meaning="The same recording in another format, level or cut.",
        remedy="Listen; keep the best one.",
        source="corpus/duplicates.py",
    ),
    Check(
        name="near_duplicate_text",
        title="nearly the same text as another",
        rules={"note": "near_duplicate_text_of IS NOT NULL"},
        meaning="Often two transcriptions of one sentence by different conventions, or a typing error.",
        remedy="Compare them; make the spelling agree.",
        source="corpus/duplicates.py",
    ),
)

UTTERANCE_CHECKS: tuple[Check, ...] = (
    *DECODABILITY,
    *DURATION,
    *FORMAT,
    *LEVEL,
    *SILENCE,
    *RATE,
    *TEXT,
    *CONTENT,
    *DUPLICATES,
)

LABEL_ERROR_CHECKS = (
    "label_conflict",
    "no_speech",
    "text_missing",
    "silent",
    "rate_fast",
    "rate_slow",
    "repeated_phrase",
    "hallucination_phrase",
    "mojibake",
    "mixed_script",
    "language_mismatch",
    "markup",
)
"""Checks whose errors and warnings say that a transcript is probably wrong: the label-noise estimate counts them."""
