"""Several precisions of one target side by side: size, WER, speed, and which one to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_json
from speechtune.export.exporting import (
    FORMATS,
    ExportOptions,
    choose_contexts,
    choose_format,
    clips_for,
    make_one,
    refuse_existing,
)
from speechtune.export.gate import SourceTexts, check_runtimes
from speechtune.export.source import open_source

MOST_LOST = 0.02
"""Two points of WER (own choice): more than decoding again with other threads changes, less than a user would accept
for half of the size."""


def run_ladder(model: str, out: Path, options: ExportOptions) -> dict[str, Any]:
    """Export every rung of a target below ``out/<dtype>`` and recommend one.

    Recommended is the smallest artefact that passed the gate and is shown to be no more than `MOST_LOST` worse than the
    source (its interval ends below); few clips show that of fine types only. Where none is, the one whose interval ends
    lowest. The source decodes once for all rungs.

    Raises:
        InputError: see `export_model`.
    """
    choose_format(options.to, None)
    if options.upload:
        raise InputError("--ladder compares types and uploads none: export the chosen --dtype with --upload")
    form = FORMATS[options.to]
    rungs = options.dtype.split(",") if options.dtype else list(form.ladder)
    for dtype in rungs:
        choose_format(options.to, dtype)
    refuse_existing(out, options.overwrite)
    source = open_source(model, options.language)
    check_runtimes(form.legs(source, choose_contexts(source, options.contexts), rungs[0]), options.python)
    texts = SourceTexts(source, clips_for(source, options))
    rows = [row_of(make_one(texts, out / dtype, replace(options, overwrite=True), dtype)) for dtype in rungs]
    best = recommend(rows)
    found = {"format": options.to, "ladder": rows, "recommended": best["dtype"] if best else None}
    write_json(out / "ladder.json", found)
    return {**found, "path": str(out)} | ({} if best else {"exit_code": 1})


def recommend(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The rung to take, if any passed (see `run_ladder`)."""
    passed = [row for row in rows if row["passed"]]
    unharmed = [row for row in passed if _most_lost(row) <= MOST_LOST]
    if unharmed:
        return min(unharmed, key=lambda row: int(row["bytes"]))
    return min(passed, key=_most_lost, default=None)


def _most_lost(row: dict[str, Any]) -> float:
    """Where the interval of the WER difference ends; without references the gate alone judges: 0."""
    interval = (row["wer_difference"] or {}).get("interval")
    return float(interval["high"]) if interval is not None else 0.0


def row_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """One rung: the worst WER difference of its legs (without those that show a runtime's habits), and the speeds."""
    legs = [leg for leg in manifest["gate"]["legs"] if "distance" in leg]
    judged = [leg for leg in legs if (leg["wer_difference"] or {}).get("difference") is not None and not leg["habit"]]
    worst = max(judged, key=lambda leg: leg["wer_difference"]["difference"], default=None)
    return {
        "dtype": manifest["dtype"],
        "bytes": manifest["bytes"],
        "passed": manifest["gate"]["passed"],
        "reasons": manifest["gate"]["reasons"],
        "wer": worst["wer_target"] if worst else None,
        "wer_difference": worst["wer_difference"] if worst else None,
        "distance": max((leg["distance"] for leg in legs if not leg["habit"]), default=None),
        "divergence": max((leg["divergence"]["rate"] for leg in legs if not leg["habit"]), default=None),
        "rtfx": {f"{leg['runtime']} {leg['context']}{' defaults' * leg['habit']}": leg["rtfx"] for leg in legs},
        "path": manifest["path"],
    }


def ladder_text(found: dict[str, Any]) -> str:
    """The table for a person."""
    lines = [f"{'type':14} {'MB':>8} {'WER':>8} {'change (95 %)':>24} {'RTFx':>8}  verdict"]
    for row in found["ladder"]:
        wer = "-" if row["wer"] is None else f"{100 * row['wer']:.1f} %"
        speed = max((one for one in row["rtfx"].values() if one), default=None)
        verdict = "passed" if row["passed"] else f"refused: {row['reasons'][0]}"
        lines.append(
            f"{row['dtype']:14} {row['bytes'] / 1e6:8.1f} {wer:>8} {_change(row['wer_difference']):>24} "
            f"{'-' if speed is None else f'{speed:.1f}':>8}  {verdict}"
        )
    best = found["recommended"]
    how = f"the smallest that passed and loses at most {100 * MOST_LOST:g} points for sure, else the one nearest to it"
    lines.append(f"recommended: {best} ({how})" if best else "recommended: none, as none passed")
    return "\n".join(lines)


def _change(difference: dict[str, Any] | None) -> str:
    if difference is None or difference["difference"] is None:
        return "-"
    text = f"{100 * difference['difference']:+.1f}"
    interval = difference["interval"]
    return text if interval is None else f"{text} ({100 * interval['low']:+.1f} … {100 * interval['high']:+.1f})"
