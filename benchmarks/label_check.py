"""Precision and recall of ``speechtune check-labels`` on planted errors.

    python benchmarks/label_check.py plant CORPUS OUT [--split dev] [--share 0.1] [--seed 0] [--limit N] [--no-audio]
    speechtune check-labels OUT --model RUN ... --out OUT/label_check
    python benchmarks/label_check.py score OUT OUT/label_check/labels.jsonl
    python benchmarks/label_check.py repeat CORPUS --transcripts FILE ... [--split dev] [--share 0.1] [--seeds 20]

``repeat`` plants errors of the text with many seeds and sums up what is found with ready transcripts.
``plant`` copies the table (audio stays where it is) and spoils a share of the labels, in turn: replaced by another
utterance's, exchanged with another's, cut to 60 % of the words, three foreign words put in, and the recording cut to
60 % of its length (not with ``--no-audio``, which keeps ready transcripts of the recordings valid).
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path

from speechtune.core.files import read_jsonl, write_json
from speechtune.corpus.table import Corpus, Utterance
from speechtune.scoring.label_check import check_labels
from speechtune.scoring.label_judges import judge_from_file
from speechtune.scoring.label_tiers import Tiers
from speechtune.scoring.label_verdicts import wilson


def spoil(corpus: Corpus, share: float, seed: int, audio: bool) -> tuple[list[Utterance], dict[str, str]]:
    """Rows with planted errors, and the kind of error by utterance id."""
    rng = random.Random(seed)
    rows = [Utterance.from_row(row.to_row()) for row in corpus]
    for row in rows:
        row.file_name = str((corpus.root / row.file_name).resolve())
    texts = [row.text for row in rows]
    kinds = ["replaced", "swapped", "text_cut", "words_put_in"] + ["audio_cut"] * audio
    planted: dict[str, str] = {}
    free = rng.sample(range(len(rows)), len(rows))
    count = round(share * len(rows))
    turn = 0
    while len(planted) < count:
        kind = kinds[turn % len(kinds)]
        row = rows[free.pop()]
        words = row.text.split()
        other = rng.choice([text for text in texts if text != row.text])
        if kind in ("text_cut", "audio_cut") and len(words) < 4:
            continue
        turn += 1
        if kind == "replaced":
            row.text = other
        elif kind == "swapped":
            second = rows[free.pop()]
            row.text, second.text = second.text, row.text
            planted[second.utterance_id] = kind
        elif kind == "text_cut":
            row.text = " ".join(words[: math.ceil(0.6 * len(words))])
        elif kind == "words_put_in":
            place = rng.randint(0, len(words))
            row.text = " ".join([*words[:place], *other.split()[:3], *words[place:]])
        else:
            start_s = row.start_s or 0.0
            row.duration_s = round(0.6 * row.duration_s, 3)
            row.start_s, row.end_s = start_s, round(start_s + row.duration_s, 3)
        planted[row.utterance_id] = kind
    return rows, planted


def plant(corpus: Corpus, out: Path, share: float, seed: int, audio: bool) -> dict[str, str]:
    """Write a spoilt copy of ``corpus`` to ``out``; return the kind of error by utterance id."""
    rows, planted = spoil(corpus, share, seed, audio)
    out.mkdir(parents=True)
    spoilt = Corpus(out, rows, {"kept": len(rows)})
    spoilt.card["fingerprint"] = spoilt.fingerprint()
    spoilt.save()
    write_json(out / "planted.json", planted)
    return planted


def score(planted: dict[str, str], rows: list[dict[str, object]]) -> dict[str, object]:
    """Precision and recall of ``probably_wrong``, recall by kind, and the agreement of the kind with the truth."""
    flagged = {str(row["utterance_id"]) for row in rows if row["probably_wrong"]}
    hits = flagged & set(planted)
    by_kind = {}
    for kind in dict.fromkeys(planted.values()):
        names = {name for name, own in planted.items() if own == kind}
        by_kind[kind] = f"{len(names & flagged)}/{len(names)}"
    clean = len(rows) - len(planted)
    return {
        "utterances": len(rows),
        "planted": len(planted),
        "flagged": len(flagged),
        "precision": round(len(hits) / len(flagged), 3) if flagged else None,
        "precision_interval": [round(bound, 3) for bound in wilson(len(hits), len(flagged))],
        "recall": round(len(hits) / len(planted), 3),
        "recall_interval": [round(bound, 3) for bound in wilson(len(hits), len(planted))],
        "false_alarm_rate": round(len(flagged - hits) / clean, 4),
        "recall_by_kind": by_kind,
        "false_alarms": sorted(flagged - hits),
    }


def repeat(corpus: Corpus, files: list[Path], share: float, seeds: int) -> dict[str, object]:
    """Sums over many plantings of text errors, judged by ready transcripts, and the noise estimates."""
    judges = [judge_from_file(path, corpus) for path in files]
    totals: dict[str, list[int]] = {}
    flagged = clean = false = 0
    estimates: list[float] = []
    for seed in range(seeds):
        rows, planted = spoil(corpus, share, seed, audio=False)
        report = check_labels(Corpus(corpus.root, rows), judges, Tiers(), seed=seed)
        names = {row["utterance_id"] for row in report.rows if row["probably_wrong"]}
        flagged += len(names)
        false += len(names - set(planted))
        clean += len(rows) - len(planted)
        if report.noise:
            estimates.append(report.noise["estimated_share"])
        for name, kind in planted.items():
            counts = totals.setdefault(kind, [0, 0])
            counts[0] += name in names
            counts[1] += 1
    found, there = sum(one for one, _ in totals.values()), sum(one for _, one in totals.values())
    return {
        "utterances": len(corpus),
        "judges": [judge.name for judge in judges],
        "plantings": seeds,
        "precision": round(found / flagged, 3),
        "recall": round(found / there, 3),
        "false_alarm_rate": round(false / clean, 4),
        "recall_by_kind": {kind: f"{one}/{many} = {one / many:.3f}" for kind, (one, many) in totals.items()},
        "estimated_share_of_wrong_labels": [min(estimates), max(estimates)] if estimates else None,
    }


def main() -> None:
    """Plant or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant")
    planting.add_argument("corpus", type=Path)
    planting.add_argument("out", type=Path)
    planting.add_argument("--split")
    planting.add_argument("--share", type=float, default=0.1)
    planting.add_argument("--seed", type=int, default=0)
    planting.add_argument("--limit", type=int, help="every n-th utterance, so that about as many are left")
    planting.add_argument("--no-audio", action="store_true")
    scoring = commands.add_parser("score")
    scoring.add_argument("corpus", type=Path)
    scoring.add_argument("labels", type=Path)
    again = commands.add_parser("repeat")
    again.add_argument("corpus", type=Path)
    again.add_argument("--transcripts", type=Path, action="append", required=True)
    again.add_argument("--split")
    again.add_argument("--share", type=float, default=0.1)
    again.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.command == "score":
        planted = json.loads((options.corpus / "planted.json").read_text(encoding="utf-8"))
        print(json.dumps(score(planted, read_jsonl(options.labels))))
        return
    corpus = Corpus.load(options.corpus)
    if options.split:
        corpus = corpus.split(options.split)
    if options.command == "repeat":
        print(json.dumps(repeat(corpus, options.transcripts, options.share, options.seeds)))
        return
    if options.limit:
        corpus.utterances = corpus.utterances[:: max(1, len(corpus) // options.limit)][: options.limit]
    print(json.dumps(plant(corpus, options.out, options.share, options.seed, not options.no_audio)))


if __name__ == "__main__":
    main()
