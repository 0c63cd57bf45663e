"""What combining models gains: each alone, ROVER, agreement, MBR, learned selection, logit ensemble, and the oracles.

    python benchmarks/combine.py CORPUS RUN_A RUN_B RUN_C --split dev --out combine/

Every model is decoded greedily and with beams (N-best lists), the ensemble greedily (``--ensemble-beams`` for beams
too); transcripts stay in ``--out`` and are used again. The table's differences are against the first model decoded in
the same way. Learned selection is cross-fitted over speakers; nothing else here is tuned on the split.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import open_model, transcribe_to
from speechtune.decoding.together.methods import MbrOptions
from speechtune.decoding.together.rover import RoverOptions
from speechtune.decoding.together.systems import System, read_systems
from speechtune.scoring.combining import CombineOptions, combine

BEAMS = (
    "decoding.beams=5",
    "decoding.search.n_best=5",
    "decoding.search.early_stopping=true",
)


def decode(model: str, corpus: Corpus, path: Path, overrides: Sequence[str]) -> Path:
    """Transcribe unless it is done; the seconds are kept beside the transcripts."""
    if not path.is_file():
        note(f"decoding {path.name}")
        opened = open_model(model, overrides=overrides)
        begin_s = time.perf_counter()
        transcribe_to(opened, corpus, path)
        taken = {"model": model, "seconds": round(time.perf_counter() - begin_s, 2)}
        write_json(path.with_suffix(".json"), taken)
    return path


def rows_of(systems: Sequence[System], corpus: Corpus, how: str, ensemble: System | None) -> list[dict[str, Any]]:
    """One row a system and method; differences against the first system."""
    methods: list[tuple[str, CombineOptions]] = [
        ("ROVER, frequency", CombineOptions()),
        ("ROVER, frequency, medoid first", CombineOptions(rover=RoverOptions(medoid=True))),
        ("ROVER, average confidence 0.5", CombineOptions(rover=RoverOptions("average", 0.5, 0.7))),
        ("ROVER, maximum confidence 0.5", CombineOptions(rover=RoverOptions("maximum", 0.5, 0.5))),
        ("agreement, else the first", CombineOptions(method="agree")),
        ("learned selection", CombineOptions(method="select")),
    ]
    if any(one.nbest for one in systems[0].transcripts.values()):
        methods += [
            ("MBR of the joint lists", CombineOptions(method="mbr")),
            ("MBR, scale 0.5", CombineOptions(method="mbr", mbr=MbrOptions(scale=0.5))),
        ]
    rows: list[dict[str, Any]] = []
    for name, options in methods:
        report = combine(systems, options, corpus)
        if not rows:
            alone = zip(report.systems, report.scores, report.differences, strict=True)
            rows += [_row(how, f"alone: {one}", score.wer, score.interval, None) for one, score, _ in alone]
            assert report.oracle
            found = report.oracle
            oracles = {"best hypothesis": found.hypothesis, "best of lists": found.list, "best path": found.path}
            rows += [_row(how, f"oracle: {one}", rate, None, None) for one, rate in oracles.items()]
        assert report.score
        rows.append(_row(how, name, report.score.wer, report.score.interval, report.differences[0]))
    if ensemble:
        # Agreement of one with itself is itself: the report scores it beside the first system.
        report = combine([systems[0], ensemble], CombineOptions(method="agree", agree=2), corpus)
        own = combine([ensemble, systems[0]], CombineOptions(method="agree", agree=2), corpus)
        assert own.score
        rows.append(_row(how, "logit ensemble", own.score.wer, own.score.interval, own.differences[1]))
        assert report.scores[1].wer == own.score.wer
    return rows


def _row(how: str, name: str, rate: float | None, interval: Any, gap: Any) -> dict[str, Any]:
    bounds = [interval.low, interval.high] if interval else None
    return {
        "decoding": how,
        "system": name,
        "wer": rate,
        "interval": bounds,
        "difference": gap.to_json() if gap else None,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| decoding | system | WER % | against the first model |", "|---|---|---|---|"]
    for row in rows:
        sure = " [{:.2f}, {:.2f}]".format(*(100 * one for one in row["interval"])) if row["interval"] else ""
        gap = ""
        if row["difference"] and row["difference"]["interval"]:
            one = row["difference"]
            low, high = (100 * one["interval"][side] for side in ("low", "high"))
            gap = f"{100 * one['difference']:+.2f} [{low:+.2f}, {high:+.2f}], p = {one['p_value']:.3g}"
        lines.append(f"| {row['decoding']} | {row['system']} | {100 * row['wer']:.2f}{sure} | {gap} |")
    return "\n".join(lines)


def main() -> None:
    """Decode, combine, write ``rows.json`` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", help="the best one first; three or more")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--context", default="fit", choices=("fit", "full"))
    parser.add_argument("--names", help="short names of the models, with commas")
    parser.add_argument("--ensemble-beams", action="store_true", help="decode the ensemble with beams too")
    given = parser.parse_args()
    corpus = Corpus.load(given.corpus).split(given.split)
    names = given.names.split(",") if given.names else [f"model{place}" for place in range(1, len(given.models) + 1)]
    given.out.mkdir(parents=True, exist_ok=True)
    context = f"decoding.context={given.context}"
    rows: list[dict[str, Any]] = []
    for how, overrides in (("greedy", [context]), ("nbest", [context, *BEAMS])):
        paths = [
            decode(model, corpus, given.out / f"{name}.{how}.jsonl", overrides)
            for model, name in zip(given.models, names, strict=True)
        ]
        joint = None
        if how == "greedy" or given.ensemble_beams:
            path = decode("+".join(given.models), corpus, given.out / f"ensemble.{how}.jsonl", overrides)
            joint = read_systems([path])[0]
        rows += rows_of(read_systems(paths), corpus, how, joint)
    write_json(given.out / "rows.json", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
