"""The draws that are written down are those that a training applies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_whisper

from speechtune.audio.augment import AugmentDraw
from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.reading import load_corpus
from speechtune.models.family import load_family
from speechtune.training.data import TrainingSet, sampler_for
from speechtune.training.draws import write_draws
from speechtune.training.pool import training_pool
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.run import training_set


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Joins, clips without speech and augmentation, all at once, on 24 clips of noise."""
    root = tmp_path_factory.mktemp("draws")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_whisper, "TIMESTAMPS", 151)
        tiny_whisper.make_transformers(root / "model", multilingual=True, positions=150, text_positions=96)
    (root / "corpus").mkdir()
    rng = np.random.default_rng(0)
    with (root / "corpus/metadata.jsonl").open("w") as table:
        for number in range(24):
            seconds = 0.3 + 0.02 * number
            soundfile.write(root / f"corpus/{number}.wav", rng.normal(0, 0.05, round(seconds * 16_000)), 16_000)
            row = {"utterance_id": f"u{number}", "file_name": f"{number}.wav", "text": "one two", "duration_s": seconds}
            table.write(json.dumps({**row, "speaker_id": f"s{number % 3}", "split": "train"}) + "\n")
    (root / "recipe.yaml").write_text(
        json.dumps(
            {
                "model": {"base": str(root / "model"), "language": "en"},
                "data": {"corpus": str(root / "corpus")},
                "training": {
                    "epochs": 3,
                    "augment": {"effects": [{"kind": "gain", "gain_db": [-6, 6], "probability": 0.5}]},
                    "format": {"join_share": 0.5, "empty": {"share": 0.2, "duration_s": [0.5, 1.0]}},
                },
            }
        )
    )
    return load_recipe(root / "recipe.yaml", [])


def examples_of(recipe: Recipe, epoch: int) -> tuple[TrainingSet, list]:
    family = load_family(Path(recipe.model.base), language="en", device="cpu")
    data = training_set(training_pool(load_corpus(recipe.data), family, recipe.data), family, recipe)
    return data, [pick for batch in sampler_for(recipe.training, data).plan(epoch) for pick in batch]


def test_applying_what_was_written_gives_what_the_training_reads(recipe: Recipe, tmp_path: Path) -> None:
    written = write_draws(recipe, tmp_path / "draws.jsonl", [2])
    rows = [json.loads(line) for line in (tmp_path / "draws.jsonl").read_text().splitlines()]
    data, picks = examples_of(recipe, 2)
    assert written.examples == len(rows) == len(picks)
    assert written.joined > 0 and written.empty > 0 and 0 < written.changed < written.clips
    assert written.effects == {"gain": written.changed}
    by_id = {one.utterance_id: one for one in data.utterances}
    for row, pick in zip(rows, picks, strict=True):
        if "empty" in row:
            heard = data.format.noises.apply(AugmentDraw.from_json(row["empty"]), np.zeros(0, np.float32))
            np.testing.assert_array_equal(data[pick][0].waveform, heard)
            continue
        parts = []
        for clip in row["clips"]:
            samples = load_audio(data.corpus.path_of(by_id[clip["utterance_id"]]))
            draw = AugmentDraw.from_json(clip["augment"]) if clip["augment"] else None
            (gain_db,) = [one.parameters["gain_db"] for one in draw.effects] if draw else [0.0]
            parts += [np.zeros(round(clip["gap_s"] * 16_000)), samples * 10 ** (gain_db / 20)]
        assert clip["speed"] == 1.0
        np.testing.assert_allclose(data[pick][0].waveform, np.concatenate(parts), atol=1e-6)


def test_what_is_there_stays_and_an_epoch_that_is_not_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "draws.jsonl").write_text("mine")
    with pytest.raises(InputError, match="exists: choose another"):
        write_draws(recipe, tmp_path / "draws.jsonl")
    with pytest.raises(InputError, match="the recipe has 3"):
        write_draws(recipe, tmp_path / "draws.jsonl", [3], overwrite=True)
    assert (tmp_path / "draws.jsonl").read_text() == "mine"
