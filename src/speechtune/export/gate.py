"""The parity gate: the same clips through the source and through the artefact's own runtime, and a verdict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, SpeechtuneError, missing_extra
from speechtune.core.progress import note, track
from speechtune.export import runtime_worker
from speechtune.export.clips import MARGIN_S, Clip, Clips
from speechtune.export.limits import Limits, divergence, is_proven, wer_too_high
from speechtune.export.source import Source, generation_settings
from speechtune.export.times import TIMED_RUNTIMES, TOLERANCE_S, Ends, compare_ends, source_ends, timed_places
from speechtune.models.config import Context
from speechtune.scoring.bootstrap import paired_difference
from speechtune.scoring.counting import NormaliserSpec, count_texts
from speechtune.scoring.normalisers import choose_normaliser, get_normaliser

FRAMES_STEP = 50
"""Fitted contexts are multiples of half a second, so that clips share batches and kernels."""
SOURCE_BATCH = 8
TIMEOUT_S = 3600
RUN_ON_WORDS = 8
"""A text of more than twice the source's words and this many more has run on."""
FEW_WORDS = 500
"""Below this many reference words the verdict says that it rests on little."""
MAX_CONTEXT_RISE = 0.05
"""How much higher the source's own WER may be at fitted than at full context, in absolute terms."""
MAX_CONTEXT_DISTANCE = 0.5
"""How many of its words may differ between the contexts, whatever is said."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One way the artefact is run: a runtime of `runtime_worker` at one audio context.

    ``path`` is relative to the artefact's directory. ``own_front_end``: the runtime computes features by itself.
    ``habit``: it runs as people run it, which is not the source's way (see `speechtune.export.limits.HABIT`).
    ``options`` go into the worker's job.
    """

    runtime: str
    context: Context = "full"
    path: str = "."
    own_front_end: bool = False
    habit: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one system said of one clip; ``ended``: the end-of-text token came, ``None`` where that is unknown."""

    text: str
    ended: bool | None


class SourceTexts:
    """The source's transcripts, decoded once for each audio context."""

    def __init__(self, source: Source, clips: Clips) -> None:
        self.source, self.clips = source, clips
        self.settings = generation_settings(source)
        english = not source.multilingual
        texts = [clip.text for clip in clips.clips if clip.text]
        self.normaliser, _ = choose_normaliser(clips.languages or (source.family.language,), texts, english)
        self._found: dict[str, list[Spoken]] = {}
        self._ends: dict[str, list[Ends | None]] = {}
        self.timed = timed_places(clips)

    def frames(self, clip: Clip, context: Context) -> int:
        """The audio context of a clip in mel frames."""
        family = self.source.family
        wanted = family.context_frames(clip.seconds + MARGIN_S, context)
        return min(family.window_frames, -(-wanted // FRAMES_STEP) * FRAMES_STEP)

    def at(self, context: Context) -> list[Spoken]:
        """The source's text of every clip."""
        if context not in self._found:
            groups: dict[int, list[int]] = defaultdict(list)
            for number, clip in enumerate(self.clips.clips):
                groups[self.frames(clip, context)].append(number)
            batches = [
                (frames, numbers[start : start + SOURCE_BATCH])
                for frames, numbers in groups.items()
                for start in range(0, len(numbers), SOURCE_BATCH)
            ]
            found: dict[int, Spoken] = {}
            for frames, numbers in track(batches, f"source at {context} context"):
                waves = [self.clips.clips[number].wave for number in numbers]
                for number, one in zip(
                    numbers, self.source.family.generate(waves, frames, self.settings["limit"]), strict=True
                ):
                    found[number] = Spoken(one.text, not one.truncated)
            self._found[context] = [found[number] for number in range(len(self.clips.clips))]
        return self._found[context]

    def body(self, text: str) -> list[int]:
        """The tokens of a text, without prompt and end."""
        tokens, given = self.source.family.tokens(text)
        return tokens[given:-1]

    def ends_at(self, context: Context) -> list[Ends | None]:
        """The source's timestamps of the timed clips."""
        if context not in self._ends:
            self._ends[context] = source_ends(self.source, [self.clips.clips[n] for n in self.timed], context)
        return self._ends[context]


def check_runtimes(legs: Sequence[Leg], python: str) -> None:
    """Refuse before any work what could not be checked after it.

    Raises:
        InputError: a runtime is not installed in the interpreter that is to run it.
    """
    for runtime in dict.fromkeys(leg.runtime for leg in legs):
        packages = runtime_worker.RUNTIMES[runtime][1]
        code = f"from importlib import metadata as m; [m.version(n) for n in {packages!r}]"
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode:
            if runtime == "openai-whisper":  # it brings triton, 1 GB, so no extra names it
                raise InputError(
                    "openai-whisper, in which the export is checked, is not installed: run pip install openai-whisper, "
                    "or give the interpreter of an environment that has it with --runtime-python"
                )
            raise missing_extra(f"{packages[0]}, in which the export is checked,", "export")


def run_leg(texts: SourceTexts, artefact: Path, leg: Leg, python: str, threads: int) -> dict[str, Any]:
    """The worker's result for one leg.

    Raises:
        SpeechtuneError: the runtime could not load or run the artefact; the sentence ends with its own last words.
    """
    family = texts.source.family
    places = range(len(texts.clips.clips))
    timed = texts.timed if is_timed(leg) else []
    clips = [texts.clips.clips[number] for number in (*places, *timed)]
    frames = [texts.frames(texts.clips.clips[number], leg.context) for number in places]
    frames += [family.context_frames(clip.seconds + MARGIN_S, leg.context) for clip in clips[len(places) :]]
    rows = [{"id": clip.name, "frames": n, "array": k} for k, (clip, n) in enumerate(zip(clips, frames, strict=True))]
    job = {
        **texts.settings,
        **leg.options,
        "runtime": leg.runtime,
        "artefact": str((artefact / leg.path).resolve()),
        "context": leg.context,
        "threads": threads,
        "clips": rows[: len(places)],
        "timed": rows[len(places) :],
    }
    arrays = {f"wave_{number}": clip.wave for number, clip in enumerate(clips)}
    if not leg.own_front_end:
        for number, (clip, n_frames) in enumerate(zip(clips, frames, strict=True)):
            arrays[f"features_{number}"] = family.front_end([clip.wave], n_frames)[0].numpy()
    with tempfile.TemporaryDirectory(prefix="speechtune-gate-") as name:
        folder = Path(name)
        shutil.copy(runtime_worker.__file__, folder / "worker.py")
        np.savez(folder / "clips.npz", **arrays)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        note(f"checking in {leg.runtime} at {leg.context} context")
        command = [python, str(folder / "worker.py"), str(folder)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SpeechtuneError(f"{leg.runtime} did not finish within {TIMEOUT_S} s") from error
        if done.returncode or not (folder / "result.json").is_file():
            raise SpeechtuneError(f"{leg.runtime} cannot run it ({_last_words(done)})")
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def is_timed(leg: Leg) -> bool:
    """Whether timestamps are compared on a leg."""
    return leg.runtime in TIMED_RUNTIMES and not leg.habit


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "assert" in line.lower()] or lines
    ending = f"exit code {done.returncode}" if done.returncode >= 0 else f"killed by signal {-done.returncode}"
    return f"{ending}: {telling[-1][:240]}" if telling else ending


def compare_leg(texts: SourceTexts, leg: Leg, result: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Counts, differences and the reasons against one leg, JSON-ready."""
    clips = texts.clips.clips
    source = texts.at(leg.context)
    target = [Spoken(row["text"], row["ended"]) for row in result["rows"]]
    normalise = get_normaliser(texts.normaliser)
    words = [[len(normalise(one.text).split()) for one in side] for side in (source, target)]
    run_on = [
        clip.name
        for clip, ours, theirs, n, m in zip(clips, source, target, *words, strict=True)
        if ours.ended and (theirs.ended is False or m > 2 * n + RUN_ON_WORDS)
    ]
    talking = [
        clip.name
        for clip, n, m in zip(clips, *words, strict=True)
        if clip.text == "" and m and not n and clip.name not in run_on
    ]
    speech = [number for number, clip in enumerate(clips) if clip.text != ""]
    distance = _distance(texts, [source[n] for n in speech], [target[n] for n in speech])
    tokens = [[texts.body(side[n].text) for n in speech] for side in (source, target)]
    timed = range(1, len(clips))  # the first row's time has the loading in it
    decoding_s = sum(result["rows"][n]["took_s"] for n in timed)
    found: dict[str, Any] = {
        **asdict(leg),
        "versions": result["versions"],
        "clips": len(speech),
        "equal": sum(source[n].text == target[n].text for n in speech),
        "distance": distance,
        "divergence": divergence(*tokens),
        "run_on": run_on,
        "talks_in_silence": talking,
        "silence": [
            {"clip": clip.name, "source": ours.text, "target": theirs.text}
            for clip, ours, theirs in zip(clips, source, target, strict=True)
            if clip.text == ""
        ],
        "times": _times(texts, leg, result),
        "rtfx": sum(clips[n].seconds for n in timed) / decoding_s if decoding_s else None,
        **_wer(texts, source, target),
        "differing": [
            {"clip": clips[n].name, "source": source[n].text, "target": target[n].text}
            for n in speech
            if source[n].text != target[n].text
        ][:10],
    }
    found["proven"] = is_proven(found, limits, leg.habit)
    found["reasons"] = [*_reasons(found, leg, limits), *_context_reasons(texts, leg)]
    return found


def _times(texts: SourceTexts, leg: Leg, result: dict[str, Any]) -> dict[str, Any] | None:
    """The comparison of timestamps, where they are compared and the source gives some."""
    if not result.get("ends"):
        return None
    names = [texts.clips.clips[number].name for number in texts.timed]
    return compare_ends(texts.ends_at(leg.context), result["ends"], names)


def _reasons(found: dict[str, Any], leg: Leg, limits: Limits) -> list[str]:
    where = f"in {leg.runtime} at {leg.context} context"
    reasons = []
    if found["run_on"]:
        reasons.append(f"{where} the text of {len(found['run_on'])} clips runs on ({found['run_on'][0]}, …)")
    if found["talks_in_silence"]:
        reasons.append(f"{where} silence ({found['talks_in_silence'][0]}) is given words, which the source does not do")
    differ, allowed = found["divergence"], limits.of(leg.habit)
    if differ["low"] > allowed.divergence:
        reasons.append(
            f"{where} {100 * found['distance']:.1f} % of the words differ from the source's: "
            f"{100 * differ['rate']:.1f} % of the tokens diverge ({100 * differ['low']:.1f} at least), more than the "
            f"{100 * allowed.divergence:.1f} % allowed"
        )
    times = found["times"]
    if times is not None and times["low"] > limits.times:
        reasons.append(
            f"{where} the timestamps of {times['moved']} of {times['clips']} clips move by more than {TOLERANCE_S} s, "
            f"as in {times['examples'][0]['clip']}"
        )
    change = found["wer_difference"]
    rise = change and change["difference"]
    if rise is not None and wer_too_high(rise, change["interval"], allowed.wer_rise):
        reasons.append(
            f"{where} WER rises by {100 * rise:.1f} points, more than the {100 * allowed.wer_rise:.1f} allowed"
        )
    return reasons


def _wer(texts: SourceTexts, source: list[Spoken], target: list[Spoken]) -> dict[str, Any]:
    """WER of both and their paired difference, where what is said is known."""
    known = [number for number, clip in enumerate(texts.clips.clips) if clip.text]
    if not known:
        return {"wer_source": None, "wer_target": None, "wer_difference": None}
    counts = [_counts(texts, known, side) for side in (source, target)]
    lengths = counts[0][:, :3].sum(1)
    errors = [count[:, 1:].sum(1) for count in counts]
    speakers = [texts.clips.clips[n].speaker for n in known]
    difference = paired_difference(errors[0], errors[1], lengths, speakers)
    rates = [float(side.sum() / max(1, lengths.sum())) for side in errors]
    return {"wer_source": rates[0], "wer_target": rates[1], "wer_difference": difference.to_json()}


def _counts(texts: SourceTexts, numbers: list[int], side: list[Spoken]) -> np.ndarray:
    references = [texts.clips.clips[n].text or "" for n in numbers]
    return count_texts(references, [side[n].text for n in numbers], NormaliserSpec(texts.normaliser)).words


def _distance(texts: SourceTexts, source: list[Spoken], target: list[Spoken]) -> float:
    words = count_texts(
        [one.text for one in source], [one.text for one in target], NormaliserSpec(texts.normaliser)
    ).words
    return float(words[:, 1:].sum() / max(1, words[:, :3].sum()))


def _context_reasons(texts: SourceTexts, leg: Leg) -> list[str]:
    """Whether the source itself can be used at this leg's context, measured against the other one."""
    trained = texts.source.contexts
    other: Context = "full" if leg.context == "fit" else "fit"
    if other not in trained or (leg.context == "full" and "full" in trained):
        return []
    there, here = texts.at(other), texts.at(leg.context)
    difference = _wer(texts, there, here)["wer_difference"]
    spoken = [n for n, clip in enumerate(texts.clips.clips) if clip.text != ""]
    distance = _distance(texts, [there[n] for n in spoken], [here[n] for n in spoken])
    if difference is not None and difference["difference"] > MAX_CONTEXT_RISE:
        worse = f"its own WER is {100 * difference['difference']:.1f} points higher there than at {other} context"
    elif distance > MAX_CONTEXT_DISTANCE:
        worse = f"{100 * distance:.0f} % of its words differ there from those at {other} context"
    else:
        return []
    name = "fitted audio context (audio_ctx)" if leg.context == "fit" else "full audio context"
    cure = f"train with audio_context {leg.context}" if leg.context == "fit" else "train with some full_share"
    return [f"the model was not trained for {name}: {worse}; {cure}, or export for {other} context only"]


def judge(
    texts: SourceTexts,
    artefact: Path,
    legs: Sequence[Leg],
    limits: Limits,
    python: str = sys.executable,
    threads: int = 2,
) -> dict[str, Any]:
    """Run every leg and say whether the artefact is the source: ``passed``, ``reasons``, ``legs``."""
    results, reasons = [], []
    for leg in legs:
        try:
            found = compare_leg(texts, leg, run_leg(texts, artefact, leg, python, threads), limits)
        except SpeechtuneError as error:
            found = {**asdict(leg), "reasons": [str(error)]}
        results.append(found)
        reasons += found["reasons"]
    words = sum(len((clip.text or "").split()) for clip in texts.clips.clips)
    notes = []
    proven = all(one.get("proven", False) for one in results)
    if texts.clips.kind == "corpus" and not reasons and not proven:
        notes.append(_not_proven(results, limits, len(texts.clips.clips)))
    if words < FEW_WORDS:
        notes.append(f"only {words} words of known text: small differences of WER cannot be told; give more --clips")
    return {
        "passed": not reasons,
        "proven": proven and not reasons,
        "notes": notes,
        "reasons": list(dict.fromkeys(reasons)),
        "judged_on": {"kind": texts.clips.kind, "origin": texts.clips.origin, "clips": len(texts.clips.clips)},
        "normaliser": texts.normaliser,
        "limits": asdict(limits),
        "legs": results,
    }


def _not_proven(legs: Sequence[dict[str, Any]], limits: Limits, clips: int) -> str:
    """What the intervals leave open, in a sentence."""
    worst = max((one for one in legs if not one.get("proven")), key=lambda one: one["divergence"]["high"])
    change, differ = worst["wer_difference"] or {}, worst["divergence"]
    interval = change.get("interval")
    reach = f", WER rises by at most {100 * interval['high']:.1f} points" if interval else ""
    return (
        f"nothing contradicts parity, but {clips} clips do not prove it within {100 * limits.wer_rise:g} points: in "
        f"{worst['runtime']} at {worst['context']} context at most {100 * differ['high']:.1f} % of the tokens "
        f"diverge{reach} (95 %); more --clips narrow that"
    )
