"""``speechtune demo``: the whole road on an embedded default, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the corpus and the run go.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted demonstration.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Teach Whisper tiny.en a dozen Hebrew words in English sentences, and show what got better."""
    from speechtune.report.run_report import write_report
    from speechtune.training.demo import run_demo

    run = run_demo(out, seed=seed, resume=resume)
    page = write_report(run.directory)
    return {**run.summary, "report": str(page)}, _text(run.summary, page)


def _text(summary: dict[str, Any], page: Path) -> str:
    rows = {row["set"]: row for row in summary["comparisons"] if row["context_after"] == "fit"}
    target, general = rows["target"], rows["general"]
    low, high = (100 * general["difference"]["interval"][side] for side in ("low", "high"))
    verdict = "did not get worse" if low <= 0 else "got worse"
    return "\n".join(
        [
            "",
            "                              before    after",
            f"WER, sentences with the words {100 * target['wer_before']:6.1f} % {100 * target['wer_after']:6.1f} %",
            f"words recognised (recall)     {100 * target['term_recall_before']:6.1f} % "
            f"{100 * target['term_recall_after']:6.1f} %",
            f"WER, ordinary sentences       {100 * general['wer_before']:6.1f} % {100 * general['wer_after']:6.1f} %"
            f"   ({verdict}: 95 % interval of the change {low:+.1f} to {high:+.1f} points)",
            "",
            f"report:  {page}",
            f"try it:  speechtune transcribe {summary['run']} YOUR.wav",
            "next:    speechtune import YOUR_RECORDINGS --out my-corpus && speechtune split my-corpus",
            "         speechtune train recipes/children.yaml data.corpus=my-corpus 'evaluation.sets=[]' --out my-run",
        ]
    )
