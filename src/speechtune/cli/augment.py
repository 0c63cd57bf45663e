"""``speechtune augment``: hear what a preset does, or write a corpus with changed copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a corpus with the changed copies here.")
    ] = None,
    preview: Annotated[Path | None, typer.Option("--preview", help="Write a page to listen to here.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Named effects or mixture, such as classroom.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with an augment block's keys.")] = None,
    noise: Annotated[Path | None, typer.Option("--noise", help="Directory of noise recordings.")] = None,
    impulses: Annotated[Path | None, typer.Option("--impulses", help="Directory of room impulse responses.")] = None,
    share: Annotated[
        float | None,
        typer.Option(
            "--share", help="Changed copies per clip. Default: 0.5, or what makes the clean share of a mixture true."
        ),
    ] = None,
    empty: Annotated[float, typer.Option("--empty", help="Silence and noise-only clips per clip.")] = 0.0,
    join: Annotated[float, typer.Option("--join", help="Share of the clips that go into joined ones.")] = 0.0,
    splits: Annotated[
        str, typer.Option("--splits", help="Splits to add to, with commas; none: clips without one.")
    ] = "train",
    only_changed: Annotated[
        bool, typer.Option("--only-changed", help="Leave the originals out of --out: a test set in noise, for example.")
    ] = False,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Clips on the preview page.")] = 12,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Change clips: noise, rooms, channels, speed; as a page to listen to, or as a new corpus."""
    from speechtune.audio.augment.config import AugmentConfig
    from speechtune.core.config import load_config
    from speechtune.core.errors import InputError
    from speechtune.corpus.augmenting import AugmentPlan, augment_corpus
    from speechtune.corpus.table import Corpus
    from speechtune.report.augment_preview import write_preview

    if out is None and preview is None:
        raise InputError("nothing to write: name a page with --preview, or a directory with --out")
    keys = {"preset": preset, "noise_dir": noise, "impulse_dir": impulses}
    settings = load_config(
        AugmentConfig, config, [f"{key}={value}" for key, value in keys.items() if value is not None]
    )
    if not (settings.enabled or empty or join):
        raise InputError("no effects are given: name a --preset such as classroom, or a --config")
    table = Corpus.load(corpus)
    plan = AugmentPlan(
        settings, share, empty, join, splits=tuple(splits.split(",")), seed=seed, only_changed=only_changed
    )
    result: dict[str, Any] = {}
    texts = []
    if preview is not None:
        result["preview"] = write_preview(table, plan, preview, examples).to_json()
        texts.append(f"{preview}: {result['preview']['examples']} examples")
    if out is not None:
        written = augment_corpus(table, out, plan, overwrite=overwrite, workers=workers)
        result |= written.to_json()
        texts.append(str(written))
    return result, "\n".join(texts)
