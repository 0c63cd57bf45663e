"""Laws of splitting: groups stay together, seeds decide, shares are near, strata are everywhere."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.split import split_corpus
from speechtune.corpus.table import Corpus, Utterance


def make_corpus(speakers: int = 40, seed: int = 0, root: Path = Path("corpus")) -> Corpus:
    """Speakers of five ages (the last one rare) with 5 to 40 utterances of 1 to 6 s each."""
    rng = np.random.default_rng(seed)
    rows = []
    for speaker in range(speakers):
        age = "12" if speaker < 3 else str(5 + speaker % 4)
        for number in range(int(rng.integers(5, 40))):
            rows.append(
                Utterance(
                    utterance_id=f"s{speaker}-{number}",
                    file_name="x.wav",
                    text=f"text {speaker} {number}",
                    duration_s=float(rng.uniform(1, 6)),
                    speaker_id=f"s{speaker}",
                    session_id=f"s{speaker}-{number % 2}",
                    age=age,
                    gender="fm"[speaker % 2],
                )
            )
    return Corpus(root, rows)


def splits(corpus: Corpus) -> dict[str, str | None]:
    return {row.utterance_id: row.split for row in corpus}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speakers", [9, 40, 150])
def test_no_group_is_in_two_splits_and_every_stratum_is_in_every_split(speakers: int, seed: int) -> None:
    corpus = make_corpus(speakers, seed)
    split_corpus(corpus, seed=seed)
    places, strata, holders = defaultdict(set), defaultdict(set), defaultdict(set)
    for row in corpus:
        places[row.speaker_id].add(row.split)
        strata[row.age].add(row.split)
        holders[row.age].add(row.speaker_id)
    assert all(len(names) == 1 for names in places.values())
    assert all(strata[age] == {"train", "dev", "test"} for age, who in holders.items() if len(who) >= 3)


@pytest.mark.parametrize(("dev", "test"), [(0.1, 0.1), (0.2, 0.0), (0.25, 0.15)])
def test_shares_are_near_the_fractions(dev: float, test: float) -> None:
    corpus = make_corpus(150)
    result = split_corpus(corpus, dev_frac=dev, test_frac=test, stratify=("age", "gender"))
    wanted = {"train": 1 - dev - test, "dev": dev, "test": test}
    assert [part.name for part in result.parts] == [name for name, share in wanted.items() if share]
    for part in result.parts:
        assert part.utterances / len(corpus) == pytest.approx(wanted[part.name], abs=0.02)
        assert part.seconds / corpus.seconds_of_audio == pytest.approx(wanted[part.name], abs=0.02)
        for gender, share in part.shares["gender"].items():
            whole = sum(row.gender == gender for row in corpus) / len(corpus)
            assert share == pytest.approx(whole, abs=0.06)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    first, shuffled, other = make_corpus(), make_corpus(), make_corpus()
    random.Random(1).shuffle(shuffled.utterances)
    split_corpus(first, seed=3)
    split_corpus(shuffled, seed=3)
    split_corpus(other, seed=4)
    assert splits(first) == splits(shuffled)
    assert splits(first) != splits(other)


def test_by_another_column_and_by_none() -> None:
    corpus = make_corpus(4)
    split_corpus(corpus, by="session_id")
    places = defaultdict(set)
    for row in corpus:
        places[row.session_id].add(row.split)
    assert all(len(names) == 1 for names in places.values())
    split_corpus(corpus, by="none", overwrite=True, dev_frac=0.2)
    assert sum(row.split == "dev" for row in corpus) / len(corpus) == pytest.approx(0.2, abs=0.03)


def test_existing_splits_are_kept_or_replaced_only_when_told() -> None:
    corpus = make_corpus()
    for row in corpus:
        row.split = {"s5": "test", "s6": "holdout"}.get(row.speaker_id or "")
    with pytest.raises(InputError, match="--keep-existing"):
        split_corpus(corpus)
    split_corpus(corpus, keep_existing=True)
    assert {row.split for row in corpus if row.speaker_id == "s5"} == {"test"}
    assert {row.split for row in corpus if row.speaker_id == "s6"} == {"holdout"}
    assert {row.split for row in corpus} == {"train", "dev", "test", "holdout"}
    corpus.utterances[0].split = "holdout" if corpus.utterances[0].split != "holdout" else "dev"
    with pytest.raises(InputError, match="is in the splits"):
        split_corpus(corpus, keep_existing=True)
    split_corpus(corpus, overwrite=True)
    assert {row.split for row in corpus} == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dev_frac": 0.6, "test_frac": 0.4}, "add up"),
        ({"dev_frac": -0.1}, "add up"),
        ({"dev_frac": 0.0, "test_frac": 0.0}, "add up"),
        ({"by": "classroom"}, "--by none"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        split_corpus(make_corpus(), **options)


def test_too_few_groups() -> None:
    with pytest.raises(InputError, match="2 groups"):
        split_corpus(make_corpus(2))


def test_shared_transcripts_are_counted() -> None:
    corpus = make_corpus()
    assert split_corpus(corpus).texts_in_two == 0
    for row in corpus:
        row.text = "Same  Words" if row.utterance_id.endswith("-1") else row.text
    corpus.utterances[1].text = "same words"
    assert split_corpus(corpus, overwrite=True).texts_in_two == 1


def test_the_verb_writes_the_table_and_the_card(tmp_path: Path, run: Any) -> None:
    corpus = make_corpus(root=tmp_path)
    corpus.save()
    done = run(
        "split", tmp_path, "--dev", "0.2", "--test", "0", "--stratify", "age", "--stratify", "gender", "--json", "-q"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    saved = Corpus.load(tmp_path)
    assert json.loads(done.stdout)["splits"]["dev"]["utterances"] == len(saved.split("dev"))
    assert saved.card["fingerprint"] == saved.fingerprint()
    assert saved.card["split"]["stratify"] == ["age", "gender"]
    assert [row.utterance_id for row in saved] == [row.utterance_id for row in corpus]
    assert run("split", tmp_path).exit_code == 2
    shown = run("split", tmp_path, "--overwrite").stdout
    assert "utterances" in shown
    assert "age (share)" in shown
