"""A long file built from real utterances with known text: what the ways through it lose beyond the utterances alone.

    python benchmarks/long_form.py whisper-tiny.en CORPUS --minutes 60 --out figures.json

The utterances are joined with pauses of 0.3 to 4 s of faint noise. Every way (and the utterances alone) runs in a
process of its own. Reported for each: WER, hours of audio an hour of work, the highest memory, and which reference
words it deletes that are right when the utterance is decoded alone (``lost``), and how many of these are the first or
last of their utterance, where cutting would show; ``found`` is the reverse. For ``vad`` the pieces themselves are
judged, whatever the model says: audible sound of an utterance outside all pieces, and cuts within it; only
``lost_not_whole`` words are lost in such utterances. ``--minutes``
takes several lengths: memory must not grow with them. Every digit is a word, because whisper-english writes numbers
said one after the other, in two utterances, as one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from measuring import highest_mib

RATE_HZ = 16_000
BELOW_DB = 25.0
"""Frames within this of an utterance's loud ones (95 %) are audible."""
LEAST_MISSED_FRAMES = 10
"""An utterance with a tenth of a second of audible sound in no piece is not whole."""


def build(source: Path, target: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Write the long file; for each utterance in it its id, text and span in samples."""
    from speechtune.audio.io import load_audio
    from speechtune.corpus.table import Corpus

    corpus = Corpus.load(source)
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Any]] = []
    length = 0
    with soundfile.SoundFile(target, "w", RATE_HZ, 1, "PCM_16") as file:
        while length < 60 * minutes * RATE_HZ:  # a corpus shorter than that is said again, in another order
            for place in rng.permutation(len(corpus)):
                one = corpus.utterances[place]
                if length >= 60 * minutes * RATE_HZ:
                    break
                samples = load_audio(corpus.path_of(one), one.start_s, one.end_s)
                pause = (1e-4 * rng.standard_normal(int(rng.uniform(0.3, 4.0) * RATE_HZ))).astype(np.float32)
                file.write(samples)
                file.write(pause)
                span = [length, length + len(samples)]
                parts.append({"id": one.utterance_id, "text": one.text, "span": span})
                length = span[1] + len(pause)
    return {"parts": parts, "seconds": length / RATE_HZ}


def work(job: dict[str, Any], mode: str) -> dict[str, Any]:
    """One way through the file, in this process: its texts, seconds and memory."""
    from speechtune.corpus.table import Corpus, Utterance
    from speechtune.decoding.sources import open_model, transcribe_to

    facts = job["file"]
    overrides = list(job["overrides"]) + ([] if mode == "alone" else [f"decoding.long={mode}"])
    opened = open_model(job["model"], language=job["language"], overrides=overrides)
    if mode == "alone":
        whole = Corpus.load(Path(job["corpus"]))
        held = {one.utterance_id: one for one in whole}
        corpus = Corpus(whole.root, [held[name] for name in dict.fromkeys(one["id"] for one in facts["parts"])])
    else:
        row = Utterance(utterance_id="long", file_name="long.wav", text="", duration_s=facts["seconds"])
        corpus = Corpus(Path(job["root"]), [row], {})
    began_s = time.monotonic()
    said = transcribe_to(opened, corpus, None)
    taken_s = time.monotonic() - began_s
    found: dict[str, Any] = {
        "texts": {one.utterance_id: one.text for one in said},
        "language": opened.family.language,
        "rtfx": round(corpus.seconds_of_audio / taken_s, 2),
        "peak_mib": round(highest_mib()),
    }
    if mode == "vad":
        found["pieces"] = judge_pieces(opened, Path(job["root"]) / "long.wav", facts)
    return found


def judge_pieces(opened: Any, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Audible sound of utterances that no piece holds, and pieces that end or begin within it."""
    from speechtune.corpus.segmentation.cuts import frame_energy_db
    from speechtune.decoding.long.recording import Recording
    from speechtune.decoding.long.transcribing import vad_spans

    recording = Recording(path, 0.0, facts["seconds"])
    spans = vad_spans(opened.family, recording, opened.decoding)
    held = np.zeros(recording.length // 160 + 2, bool)
    edges = np.zeros_like(held)
    for first, last in spans:
        held[first // 160 : -(-last // 160)] = True
        edges[[first // 160, min(last // 160, len(edges) - 1)]] = True
    outside, whole, cuts, missed = 0, 0, [], []
    for number, part in enumerate(facts["parts"]):
        first, last = part["span"]
        energy_db = frame_energy_db(recording.read(first / RATE_HZ, last / RATE_HZ))
        audible = energy_db > np.quantile(energy_db, 0.95) - BELOW_DB
        at = first // 160 + np.arange(len(audible))
        without = int((audible & ~held[at]).sum())
        outside += without
        whole += int(audible.sum())
        if without >= LEAST_MISSED_FRAMES:
            missed.append(number)
        if (edges[at[1:-1]] & audible[:-2] & audible[1:-1] & audible[2:]).any():
            cuts.append(number)
    return {
        "pieces": len(spans),
        "audible_s": whole / 100,
        "audible_outside_s": outside / 100,
        "utterances_cut_in_sound": len(cuts),
        "not_whole": sorted({*cuts, *missed}),
    }


def words_of(language: str | None) -> Callable[[str], list[str]]:
    """What cuts a text into the words that are compared."""
    from speechtune.scoring.normalisers import get_normaliser

    normaliser = get_normaliser("whisper-english" if language == "en" else "whisper-basic")
    return lambda text: re.sub(r"(?<=\d)(?=\d)", " ", normaliser(text)).split()


def judge(
    facts: dict[str, Any], alone: dict[str, str], text: str, language: str | None, not_whole: Sequence[int] = ()
) -> dict[str, Any]:
    """WER of the long text, and the words that only it, or only the utterances alone, have wrong.

    ``not_whole``: the utterances, by number, that pieces do not hold whole; ``lost_not_whole`` counts their words.
    """
    from speechtune.scoring.alignment import align

    words_in = words_of(language)
    reference: list[str] = []
    edge: list[bool] = []
    right: list[bool] = []
    owner: list[int] = []
    deleted_alone = 0
    for number, part in enumerate(facts["parts"]):
        words = words_in(part["text"])
        steps = [one for one in align(words, words_in(alone[part["id"]])) if one.ref is not None]
        reference += words
        owner += [number] * len(words)
        edge += [place in (0, len(words) - 1) for place in range(len(words))]
        right += [one.op == "equal" for one in steps]
        deleted_alone += sum(one.op == "delete" for one in steps)
    steps = align(reference, words_in(text))
    inserted = sum(one.ref is None for one in steps)
    ops = [one.op for one in steps if one.ref is not None]
    assert len(ops) == len(right)
    lost = [place for place, op in enumerate(ops) if op == "delete" and right[place]]
    return {
        "wer": (sum(op != "equal" for op in ops) + inserted) / len(reference),
        "words": len(reference),
        "deleted": sum(op == "delete" for op in ops),
        "inserted": inserted,
        "deleted_alone": deleted_alone,
        "lost": len(lost),
        "lost_at_edges": sum(edge[place] for place in lost),
        "lost_not_whole": sum(owner[place] in not_whole for place in lost),
        "edge_share": round(float(np.mean(edge)), 3),
        "lost_examples": [" ".join(reference[max(0, place - 2) : place + 3]) for place in lost[:10]],
        "found": sum(op == "equal" and not right[place] for place, op in enumerate(ops)),
    }


def errors_by_utterance(facts: dict[str, Any], text: str, language: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Word errors and reference words of each utterance of the long file; an insertion is the one's before it."""
    from speechtune.scoring.alignment import align

    words_in = words_of(language)
    parts = [words_in(part["text"]) for part in facts["parts"]]
    owner = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    errors, place = np.zeros(len(parts), np.int64), 0
    for step in align([word for one in parts for word in one], words_in(text)):
        errors[owner[min(max(place - (step.ref is None), 0), len(owner) - 1)]] += step.op != "equal"
        place += step.ref is not None
    return errors, np.array([len(one) for one in parts])


def run(job: dict[str, Any], mode: str) -> dict[str, Any]:
    """`work` in a process of its own."""
    file = Path(job["root"]) / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    words = [sys.executable, __file__, "--work", str(file), "--mode", mode]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{mode} ended with {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(given: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """All ways through one file."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        facts = build(given.corpus, Path(place) / "long.wav", minutes, given.seed)
        job = {"model": given.model, "corpus": str(given.corpus), "root": place, "file": facts}
        job |= {"language": given.language, "overrides": given.overrides}
        alone = run(job, "alone")
        texts = alone["texts"]
        joined = " ".join(texts[part["id"]] for part in facts["parts"])
        language = alone["language"]
        figures["seconds_of_audio"], figures["utterances"] = round(facts["seconds"], 1), len(facts["parts"])
        for mode in ("alone", *given.modes):
            found = alone if mode == "alone" else run(job, mode)
            text = joined if mode == "alone" else found["texts"]["long"]
            rest = {name: one for name, one in found.items() if name not in ("texts", "language")}
            not_whole = rest.get("pieces", {}).pop("not_whole", ())
            figures[mode] = {**judge(facts, texts, text, language, not_whole), **rest}
            print(f"{minutes:g} min, {mode}:", json.dumps(figures[mode], ensure_ascii=False), flush=True)
    return figures


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("overrides", nargs="*", help="decoding.key=value, for every way")
    parser.add_argument("--minutes", type=float, nargs="+", default=[60.0])
    parser.add_argument("--modes", nargs="+", default=["vad", "chunks", "sequential"])
    parser.add_argument("--language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(json.loads(given.work.read_text(encoding="utf-8")), given.mode), ensure_ascii=False))
        return
    if not given.model or not given.corpus:
        parser.error("give a model and a corpus")
    figures: dict[str, Any] = {"model": given.model, "seed": given.seed}
    figures |= {f"{minutes:g} min": measure(given, minutes) for minutes in given.minutes}
    if given.out:
        given.out.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
