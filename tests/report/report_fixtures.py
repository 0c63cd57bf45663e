"""A finished run without a model: real corpora of tones, made-up transcripts, real scores of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechtune.core.files import write_json, write_jsonl, write_text
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.scoring.score import score_transcripts
from speechtune.scoring.terms import term_recall
from speechtune.training.recipe import Recipe, TestSet

HOSTILE_ID = "<script>document.title='hacked'</script>"
HOSTILE_TEXT = "</script><img src=x onerror=\"document.title='hacked'\"> & <b>bold</b>"
HEBREW = "הילד הלך למכולת לקנות חלב"
MakeRun = Callable[[Path], Path]

SENTENCE = "the cat sat on a red mat and my brother went to makolet for milk with one old friend before school"
WORDS = SENTENCE.split()


def tone(path: Path, seconds: float) -> None:
    """A clip of 440 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times_s = np.arange(round(seconds * 16_000)) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * times_s), 16_000)


def corrupted(text: str, share: float, draw: random.Random) -> str:
    """Words dropped, replaced and doubled with a probability."""
    heard: list[str] = []
    for word in text.split():
        if draw.random() > share:
            heard.append(word)
        else:
            heard += draw.choice([[], [draw.choice(WORDS)], [word, draw.choice(WORDS)]])
    return " ".join(heard)


def children(root: Path) -> Corpus:
    """Sixty dev and twenty train utterances of ten speakers, some of them awkward."""
    draw = random.Random(0)
    rows = []
    for number in range(80):
        seconds = round(draw.uniform(0.6, 2.0), 2)
        speaker = number % 10
        rows.append(
            Utterance(
                utterance_id=f"utt-{number:03d}",
                file_name=f"audio/{number:03d}.wav",
                text=" ".join(draw.choices(WORDS, k=draw.randint(3, 11))).capitalize() + ".",
                duration_s=seconds,
                speaker_id=f"child {speaker}",
                age=str(6 + speaker % 5),
                language="en",
                split="dev" if number < 60 else "train",
            )
        )
        tone(root / rows[-1].file_name, seconds)
    rows[0].utterance_id, rows[0].text = HOSTILE_ID, HOSTILE_TEXT
    rows[1].utterance_id, rows[1].text = "עברית 1", HEBREW
    rows[2].text = "..."
    corpus = Corpus(root, rows, {"kept": 80, "dropped_by_reason": {"no text": 3}})
    corpus.save()
    return corpus


def single(root: Path, text: str) -> Corpus:
    """A corpus of one utterance of an unknown speaker."""
    tone(root / "one.wav", 1.0)
    corpus = Corpus(root, [Utterance(utterance_id="one", file_name="one.wav", text=text, duration_s=1.0)], {})
    corpus.save()
    return corpus


def build_run(folder: Path) -> Path:
    """The run, with the files and the shapes that ``speechtune train`` leaves."""
    from speechtune.training.evaluation import Measurement, compare_all  # loads torch

    run = folder / "run <1>"
    corpus = children(folder / "children")
    adults, silence = single(folder / "adults", "A single grown up speaks."), single(folder / "silence", "...")
    terms = ["makolet", "brother", "never said"]
    recipe = Recipe.model_validate(
        {
            "data": {"corpus": str(corpus.root)},
            "evaluation": {
                "sets": [
                    {"name": "dev", "split": "dev"},
                    {"name": "adults", "corpus": str(adults.root), "role": "guard"},
                    {"name": "silence", "corpus": str(silence.root)},
                ],
                "scoring": {"slice_by": ["age", "reference_words"], "terms": terms, "normaliser": "unicode"},
            },
        }
    )
    scoring = recipe.evaluation.scoring
    found: dict[str, list[Measurement]] = {"before": [], "after": []}
    for name, part in (("dev", corpus.split("dev")), ("adults", adults), ("silence", silence)):
        wanted = next(one for one in recipe.evaluation.sets if one.name == name)
        config = scoring if name == "dev" else scoring.model_copy(update={"slice_by": []})
        for system, context, share in (
            ("before", "fit", 0.8),
            ("before", "full", 0.4),
            ("after", "fit", 0.15),
            ("after", "full", 0.17),
        ):
            draw = random.Random(f"{name} {system} {context}")
            heard = [Transcript(utterance_id=one.utterance_id, text=corrupted(one.text, share, draw)) for one in part]
            if name == "dev" and system == "before":
                heard[1].text, heard[3].text = "Hello ילד", "six four " * 60
            if name == "dev" and system == "after":
                heard[1].text = HEBREW.removesuffix(" חלב")
                heard[2].text, heard[4].text = "something", "completely different words were heard here <i>now</i>"
            path = f"transcripts/{name}.{system}.{context}.jsonl"
            write_transcripts(run / path, heard)
            score = score_transcripts(part, heard, confidence=config)
            recall = term_recall(
                [one.text for one in part], [one.text for one in heard], terms, normaliser=score.normaliser
            )
            found[system].append(
                Measurement(TestSet(**wanted.model_dump()), part, system, context, path, score, recall)
            )
    comparisons = compare_all(found["before"], found["after"], recipe)
    _write_files(run, recipe, corpus, [one.to_json() for one in found["before"] + found["after"]], comparisons)
    return run


def _write_files(
    run: Path, recipe: Recipe, corpus: Corpus, measurements: list[dict[str, Any]], comparisons: list[dict[str, Any]]
) -> None:
    from omegaconf import OmegaConf

    write_text(run / "recipe.yaml", OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump())))
    draw = random.Random(1)
    metrics = [
        {
            "step": step,
            "epoch": step / 20,
            "kind": "train",
            "loss": 2.2 * 0.96**step + 0.3 + draw.uniform(-0.1, 0.1),
            "learning_rate": 3e-5 * min(step / 6, (64 - step) / 58),
            "grad_norm": 30 * 0.98**step + draw.uniform(0, 4),
        }
        for step in range(2, 61, 2)
    ]
    for step, wer in ((20, 0.27), (40, 0.18), (60, 0.19)):
        metrics.append(
            {"step": step, "epoch": step / 20, "kind": "dev", "wer": wer, "cer": wer / 2, "wer_low": wer - 0.04}
            | {"wer_high": wer + 0.05}
        )
    metrics.append({"step": 60, "epoch": 3.0, "kind": "summary", "train_runtime": 412.7, "train_loss": 0.9})
    write_jsonl(run / "metrics.jsonl", metrics)
    facts = {
        "data": {
            "corpus": str(corpus.root),
            "fingerprint": corpus.fingerprint(),
            "dropped_by_reason": {"is too long": 2},
        },
        "base": {"name": "whisper-tiny.en", "path": "/models/whisper-tiny.en"},
    }
    write_json(run / "provenance.json", provenance(7, **facts))
    write_json(run / "preflight.json", {"checks": {"labels": "20 labels decode back to their texts"}, "seconds": 1.0})
    write_json(run / "scores.json", {"measurements": measurements, "comparisons": comparisons})
    write_json(run / "run.json", {"best_step": 40, "comparisons": comparisons})
