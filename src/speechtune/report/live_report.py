"""Live against batch transcription of the same audio: error rates, latency, flicker, speed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json
from speechtune.core.progress import track
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.guards import for_transcribing
from speechtune.decoding.long.recording import Recording
from speechtune.decoding.long.timing import WordTimer, can_time
from speechtune.decoding.long.transcribing import transcribe_all
from speechtune.decoding.sources import OpenedModel, open_source
from speechtune.decoding.streaming.measures import average_lagging, latency_of
from speechtune.decoding.streaming.measuring import LiveRun, join_utterances, run_live
from speechtune.decoding.streaming.opening import open_streams
from speechtune.decoding.streaming.transcriber import Timer
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.report.compare_report import Extra, write_compare_report
from speechtune.scoring.comparison import SystemComparison, compare_systems
from speechtune.scoring.comparison_records import Cost, SystemInput
from speechtune.scoring.comparison_text import bounds, percent, signed, table
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import Score, score_transcripts

_BLOCK_S = 30
BATCH, LIVE = "batch", "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReportOptions:
    """The options of the verb; ``compute``: seconds that decoding a second costs, ``None``: as measured."""

    source: Path
    split: str | None = None
    join_s: float = 0.0
    compute: float | None = None
    language: str | None = None
    normaliser: str = "auto"
    html: Path | None = None
    out: Path | None = None
    seed: int = 0
    overwrite: bool = False


def live_report(opened: OpenedModel, options: LiveReportOptions) -> tuple[dict[str, Any], str]:
    """Transcribe everything both ways and compare: the JSON object and the text of the verb.

    Raises:
        InputError: the audio cannot be read, the model cannot do what is asked, or an output exists.
    """
    if options.html is not None and options.html.exists() and not options.overwrite:
        raise InputError(f"{options.html} exists already: choose another place or add --overwrite")
    if options.out is not None and options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists already: choose another --out or add --overwrite")
    corpus = open_source(options.source, options.split, window_s=math.inf)
    if not corpus.utterances:
        raise InputError(f"{options.source} has no utterances: there is nothing to transcribe")
    if options.html is not None and not any(one.text for one in corpus):
        raise InputError(f"{options.source} has no reference texts, which the page needs: leave --html out")
    with TemporaryDirectory(prefix="speechtune-joined-") as name:
        if options.join_s:
            corpus = join_utterances(corpus, options.join_s, Path(name))
        return _report(opened, corpus, options)


def _report(opened: OpenedModel, corpus: Corpus, options: LiveReportOptions) -> tuple[dict[str, Any], str]:
    begin = open_streams(opened, options.language, _timer(opened))
    runs = [
        run_live(
            one.utterance_id,
            (block for _, block in Recording.of(corpus.path_of(one), one).blocks(_BLOCK_S)),
            begin,
            options.compute,
        )
        for one in track(corpus.utterances, "live")
    ]
    began_s = time.perf_counter()
    batch = transcribe_all(opened.family, corpus, for_transcribing(opened.decoding))
    batch_s = time.perf_counter() - began_s
    scoring = ScoringConfig(normaliser=options.normaliser, seed=options.seed)
    found = _compared(corpus, batch, runs, batch_s, scoring) if any(one.text for one in corpus) else None
    between = _between(corpus, batch, runs, scoring, options.language)
    result = {
        "model": str(opened.path),
        "context": opened.decoding.context,
        "streaming": opened.decoding.streaming.model_dump(),
        "kept": len(corpus),
        "dropped_by_reason": {},
        "seconds_of_audio": round(corpus.seconds_of_audio, 3),
        "compute": "measured" if options.compute is None else f"{options.compute:g} s per second decoded",
        "live": _live_numbers(corpus, runs),
        "batch": {"rtf": round(batch_s / corpus.seconds_of_audio, 4)},
        "live_against_batch": {"wer": between.wer, "words": between.words.to_json()},
        "wer": None if found is None else _rates(found),
        "recordings": [_row(run, one) for run, one in zip(runs, batch, strict=True)],
        "notes": found.notes if found else ["no reference texts: live is compared with batch only"],
    }
    _write(options, result, runs, batch, found)
    return result, _as_text(result, found, options)


def _timer(opened: OpenedModel) -> Timer | None:
    """Word times by the model itself; of a converted model, by the one it was made from."""
    if can_time(opened.family):
        return WordTimer(opened.family, opened.decoding.context).times
    if opened.family.name == "whisper-ctranslate2" and list(opened.path.glob("*.safetensors")):
        from speechtune.models.family import load_family

        family = load_family(opened.path, language=opened.family.language)
        return WordTimer(family, opened.decoding.context).times
    return None


def _compared(
    corpus: Corpus, batch: list[Transcript], runs: Sequence[LiveRun], batch_s: float, scoring: ScoringConfig
) -> SystemComparison:
    audio_s = corpus.seconds_of_audio
    live = [one.transcript for one in runs]
    live_s = sum(one.busy_s for one in runs)
    inputs = [
        SystemInput(name=BATCH, source=BATCH, transcripts=batch, cost=Cost(decode_s=batch_s, audio_s=audio_s)),
        SystemInput(name=LIVE, source=LIVE, transcripts=live, cost=Cost(decode_s=live_s, audio_s=audio_s)),
    ]
    return compare_systems(corpus, inputs, scoring)


def _between(
    corpus: Corpus, batch: Sequence[Transcript], runs: Sequence[LiveRun], scoring: ScoringConfig, language: str | None
) -> Score:
    """The live texts scored as if the batch texts were the references."""
    texts = [replace(one, text=said.text) for one, said in zip(corpus, batch, strict=True)]
    live = [one.transcript for one in runs]
    return score_transcripts(Corpus(corpus.root, texts), live, confidence=scoring, language=language)


def _live_numbers(corpus: Corpus, runs: Sequence[LiveRun]) -> dict[str, Any]:
    audio_s = sum(one.audio_s for one in runs)
    lagging = [
        average_lagging(run.committed_s, run.audio_s, len(one.text.split()) or len(run.committed_s))
        for run, one in zip(runs, corpus, strict=True)
    ]
    known = [one for one in lagging if one is not None]
    final, erased = sum(one.flicker.final for one in runs), sum(one.flicker.erased for one in runs)
    busy_s = sum(one.busy_s for one in runs)
    return {
        "latency": latency_of([delay for one in runs for delay in one.delays_s]).to_json(),
        "words_with_guessed_times": sum(one.guessed_times for one in runs),
        "average_lagging_s": round(sum(known) / len(known), 3) if known else None,
        "normalised_erasure": round(erased / final, 4) if final else None,
        "updates": sum(one.updates for one in runs),
        "compute_s": round(busy_s, 3),
        "rtf": round(busy_s / audio_s, 4) if audio_s else None,
        "longest_buffer_s": round(max(one.longest_buffer_s for one in runs), 3),
    }


def _rates(found: SystemComparison) -> dict[str, Any]:
    scores = {one.name: one.score for one in found.systems}
    rates = {
        name: {
            "wer": one.wer,
            "interval": one.interval.to_json() if one.interval else None,
            "words": one.words.to_json(),
        }
        for name, one in scores.items()
    }
    return {**rates, "difference": found.pair(0, 1).to_json(found.names)}


def _row(run: LiveRun, batch: Transcript) -> dict[str, Any]:
    return {
        "utterance_id": run.transcript.utterance_id,
        "seconds_of_audio": round(run.audio_s, 3),
        "live": run.transcript.text,
        "batch": batch.text,
        "latency": latency_of(run.delays_s).to_json(),
        "normalised_erasure": run.flicker.normalised_erasure,
    }


def _write(
    options: LiveReportOptions,
    result: dict[str, Any],
    runs: Sequence[LiveRun],
    batch: list[Transcript],
    found: SystemComparison | None,
) -> None:
    if options.out is not None:
        with new_directory(options.out, options.overwrite) as draft:
            write_json(draft / "live_report.json", {**result, "provenance": provenance(options.seed)})
            write_transcripts(draft / "live.jsonl", [one.transcript for one in runs])
            write_transcripts(draft / "batch.jsonl", batch)
    if options.html is not None and found is not None:
        head, *rows = _number_rows(result)
        extra = Extra(anchor="live", title="Latency and flicker", text=_EXPLAINED, head=head, rows=rows)
        lead = [f"The same audio transcribed live and at once, by {result['model']}."]
        write_compare_report(found, options.html, title="Live against batch transcription", lead=lead, extras=[extra])


_EXPLAINED = (
    "Latency: when a word was committed, less its end. Average lagging: Ma et al. 2019. Normalised erasure: words "
    "taken back for each final word (Arivazhagan et al. 2020). The clock is simulated: audio comes as it is spoken."
)


def _number_rows(result: dict[str, Any]) -> list[list[str]]:
    live = result["live"]
    latency = live["latency"]

    def shown(value: float | None, unit: str = " s") -> str:
        return "-" if value is None else f"{value:.2f}{unit}"

    return [
        ["measure", "value"],
        ["latency, mean", shown(latency["mean_s"])],
        ["latency, median", shown(latency["median_s"])],
        ["latency, 95 %", shown(latency["p95_s"])],
        ["average lagging", shown(live["average_lagging_s"])],
        ["normalised erasure", shown(live["normalised_erasure"], "")],
        ["real-time factor, live", "-" if live["rtf"] is None else f"{live['rtf']:.3f}"],
        ["real-time factor, batch", f"{result['batch']['rtf']:.3f}"],
        ["longest buffer", shown(live["longest_buffer_s"])],
    ]


def _as_text(result: dict[str, Any], found: SystemComparison | None, options: LiveReportOptions) -> str:
    lines = [f"{result['kept']} recordings, {result['seconds_of_audio']:.1f} s, compute {result['compute']}"]
    if found is not None:
        rows = [["system", "WER %", "interval"]]
        rows += [[one.name, percent(one.score.wer), bounds(one.score.interval)] for one in found.systems]
        test = found.pair(0, 1).difference
        rows.append(["live - batch", signed(test.difference), bounds(test.interval)])
        lines += [*table(rows), ""]
    lines.append(f"live scored against batch: {percent(result['live_against_batch']['wer'])} % of the words differ")
    lines += table(_number_rows(result))
    guessed = result["live"]["words_with_guessed_times"]
    if guessed:
        lines.append(f"{guessed} words have times guessed by their letters")
    lines += result["notes"]
    lines += [f"report: {options.html}"] * (options.html is not None)
    return "\n".join(lines)
