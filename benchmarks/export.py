"""Every format and type of an exported model: size, WER with interval, speed, and the time a large task would take.

    python benchmarks/export.py MODEL CORPUS [--split dev] [--clips 200] [--formats ctranslate2,ggml] --out DIR

Speed is the runtime's own (loading left out), one clip at a time on ``--threads`` threads, so it needs an idle machine.
The projection is for 214,274 utterances, the test set of the children's challenge, of the given mean length (the one
``speechtune submit`` takes), by seconds of audio (a runtime that pads clips to 30 s needs as long for each, though).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechtune.core.files import write_json
from speechtune.decoding.submission.rehearsal import MEAN_S, UTTERANCES
from speechtune.export.exporting import FORMATS, ExportOptions
from speechtune.export.ladder import ladder_text, run_ladder


def main() -> None:
    """Run the ladders, print one table each, and write ``export.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--formats", default="ctranslate2,ggml,onnx,openai")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mean-seconds", type=float, default=MEAN_S, help="mean length of the projected utterances")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for name in given.formats.split(","):
        options = ExportOptions(
            to=name,
            corpus=given.corpus,
            split=given.split or None,
            clips=given.clips,
            threads=given.threads,
            overwrite=True,
        )
        found = run_ladder(given.model, given.out / name, options)
        for row in found["ladder"]:
            row["projected_hours"] = projected_hours(row["rtfx"], given.mean_seconds)
        results[name] = found
        print(f"\n{name} ({', '.join(FORMATS[name].ladder)})\n{ladder_text(found)}")
        for row in found["ladder"]:
            for leg, hours in row["projected_hours"].items():
                print(f"  {row['dtype']:14} {leg:24} {UTTERANCES:,} utterances: {hours:.1f} h")
    write_json(given.out / "export.json", results)


def projected_hours(rtfx: dict[str, float | None], mean_s: float) -> dict[str, float]:
    """Hours for `UTTERANCES` of ``mean_s`` seconds at each leg's speed."""
    return {leg: UTTERANCES * mean_s / speed / 3600 for leg, speed in rtfx.items() if speed}


if __name__ == "__main__":
    main()
