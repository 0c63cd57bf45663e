"""Laws of conditions, subsets by hours, temperatures, and of mixing corpora on disk."""

from __future__ import annotations

import json
import math
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechtune.audio.io import load_audio
from speechtune.core.config import validate
from speechtune.core.errors import InputError
from speechtune.corpus.conditions import Condition, filter_utterances, parse_conditions
from speechtune.corpus.config import DataConfig
from speechtune.corpus.mixing import FROM, MixOptions, MixResult, MixSource, mix_corpora, parse_source
from speechtune.corpus.sampling import subset_of_seconds, temperature_shares
from speechtune.corpus.table import Corpus, Utterance


def row(name: str = "u", **columns: Any) -> Utterance:
    return Utterance(**{"utterance_id": name, "file_name": "x.wav", "text": "t", "duration_s": 2.0, **columns})


@pytest.mark.parametrize(
    ("text", "columns", "stays"),
    [
        ("duration_s<=2", {}, True),
        ("duration_s<=1.99", {}, False),
        ("duration_s >= 2", {}, True),
        ("age>=7", {"age": "6"}, False),
        ("age=6,7", {"age": "6"}, True),
        ("age!=6, 7", {"age": "7"}, False),
        ("tier=all,0.9", {"extra": {"tier": 0.9}}, True),
        ("noisy=true", {"extra": {"noisy": True}}, True),
        ("age=6", {}, False),
        ("age!=6", {}, False),
    ],
)
def test_a_condition_as_text(text: str, columns: dict[str, Any], stays: bool) -> None:
    (condition,) = parse_conditions([text])
    assert (condition.why_not(row(**columns)) is None) == stays


def test_conditions_survive_a_recipe_and_say_why() -> None:
    given = {"corpus": "c", "where": ["age!=6", {"column": "snr_db", "min": 5, "in": [6, "x"], "unknown": "keep"}]}
    config = validate(DataConfig, given, "recipe")
    dumped = config.model_dump()
    assert dumped["where"][1]["in"] == [6, "x"]
    assert validate(DataConfig, dumped, "recipe") == config
    assert config.where[1].why_not(row(extra={"snr_db": 4})) == "snr_db is below 5"
    assert config.where[1].why_not(row(extra={"snr_db": 7})) == "snr_db is not 6 or x"
    assert config.where[1].why_not(row()) is None
    assert config.where[0].why_not(row()) == "age is unknown"


@pytest.mark.parametrize("text", ["age", "age<6", "age=", "import os", "a b=3", "duration_s<=x", "duration_s<=nan"])
def test_conditions_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match="--where"):
        parse_conditions([text])


@pytest.mark.parametrize("given", [{"column": "a"}, {"column": "a", "min": 2, "max": 1}, {"column": "a", "like": "x"}])
def test_conditions_that_say_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        validate(Condition, given, "recipe")


def test_filtering_counts_every_row_once() -> None:
    rows = [row(str(number), duration_s=number / 10, age="67"[number % 2]) for number in range(40)]
    kept, dropped = filter_utterances(rows, parse_conditions(["duration_s>=1", "age=6"]), "here")
    assert len(kept) + sum(dropped.values()) == 40
    assert dropped == {"duration_s is below 1": 10, "age is not 6": 15}
    with pytest.raises(InputError, match="not a number"):
        filter_utterances([row(speaker_id="bob")], parse_conditions(["speaker_id>=1"]), "here")


def test_temperature_limits_and_published_exponents() -> None:
    sizes = [1000, 100, 10]
    assert temperature_shares(sizes, 1) == pytest.approx(np.array(sizes) / 1110)
    assert temperature_shares(sizes, math.inf) == pytest.approx([1 / 3] * 3)
    raised = np.array(sizes, dtype=float) ** 0.3  # XLM-R's alpha
    assert temperature_shares(sizes, 1 / 0.3) == pytest.approx(raised / raised.sum())
    assert temperature_shares([1e-200, 1e200], 2).sum() == pytest.approx(1)


def many_rows(count: int = 600, seed: int = 0) -> list[Utterance]:
    rng = np.random.default_rng(seed)
    speakers = rng.choice(12, count, p=rng.dirichlet(np.full(12, 2.0)))
    return [
        row(f"u{number}", speaker_id=f"s{speakers[number]}", duration_s=float(rng.uniform(1, 8)))
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_subsets_by_hours_are_nested_and_hold_the_same_share_of_every_speaker(seed: int) -> None:
    rows = many_rows(seed=seed)
    total_s = sum(one.duration_s for one in rows)
    before: set[int] = set()
    for share in (0.1, 0.25, 0.5, 0.9, 1.0):
        chosen = subset_of_seconds(rows, share * total_s, seed)
        assert before <= set(chosen)
        before = set(chosen)
        subset_s = sum(rows[index].duration_s for index in chosen)
        assert share * total_s - 8 <= subset_s <= share * total_s + 1e-6
        for speaker in {one.speaker_id for one in rows}:
            all_s = sum(one.duration_s for one in rows if one.speaker_id == speaker)
            mine_s = sum(rows[index].duration_s for index in chosen if rows[index].speaker_id == speaker)
            assert abs(mine_s - share * all_s) <= 16
    shuffled = rows[::-1]
    first, second = subset_of_seconds(rows, 300, seed), subset_of_seconds(shuffled, 300, seed)
    assert {rows[index].utterance_id for index in first} == {shuffled[index].utterance_id for index in second}
    assert subset_of_seconds(rows, 300, seed + 1) != first


def write_corpus(root: Path, prefix: str, count: int, seed: int, **columns: Callable[[int], Any]) -> Corpus:
    """Noise clips of 0.2 to 0.6 s: four speakers in train, one in dev, one in test."""
    rng = np.random.default_rng(seed)
    (root / "audio").mkdir(parents=True)
    rows = []
    for number in range(count):
        samples = rng.uniform(-0.3, 0.3, int(rng.integers(3200, 9600))).astype(np.float32)
        soundfile.write(root / "audio" / f"{number}.wav", samples, 16_000)
        given = {name: value(number) for name, value in columns.items()}
        rows.append(
            Utterance(
                utterance_id=f"u{number}",
                file_name=f"audio/{number}.wav",
                text=f"text {prefix} {number}",
                duration_s=len(samples) / 16_000,
                speaker_id=f"{prefix}{number % 6}",
                split={4: "dev", 5: "test"}.get(number % 6, "train"),
                **given,
            )
        )
    corpus = Corpus(root, rows, {})
    corpus.save()
    return corpus


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Corpus, Corpus]:
    first = write_corpus(tmp_path / "first", "a", 60, 1, age=lambda number: "6" if number % 4 else "7")
    second = write_corpus(tmp_path / "second", "b", 120, 2, source=lambda number: f"tape {number}")
    return first, second


def mix(pair: tuple[Corpus, ...], out: Path, *weights: float, **options: Any) -> tuple[MixResult, Corpus]:
    given = [MixSource(one.root, weights[number] if weights else None) for number, one in enumerate(pair)]
    result = mix_corpora(given, out, MixOptions(**options))
    return result, Corpus.load(out)


def learnt_s(corpus: Corpus, name: str | None = None) -> float:
    return sum(one.duration_s for one in corpus if one.split == "train" and name in (None, one.extra[FROM]))


def test_a_mixture_keeps_the_ratio_the_evaluation_splits_and_counts_the_rest(
    pair: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    result, corpus = mix(pair, tmp_path / "out", 0.8, 0.2)
    assert learnt_s(corpus, "first") / learnt_s(corpus) == pytest.approx(0.8, abs=0.02)
    whole_s = sum(one.duration_s for one in pair[0].split("train"))
    assert learnt_s(corpus, "first") == pytest.approx(whole_s, abs=0.6)
    for split in ("dev", "test"):
        assert len(corpus.split(split)) == sum(len(one.split(split)) for one in pair)
    summary = result.to_json()
    assert summary["kept"] == len(corpus)
    assert summary["kept"] + sum(summary["dropped_by_reason"].values()) == 180
    assert json.loads((tmp_path / "out" / "mix.json").read_text())["sources"] == summary["sources"]
    assert {one.source for one in corpus if one.extra[FROM] == "first"} == {"first"}
    assert {one.source.split()[0] for one in corpus if one.extra[FROM] == "second"} == {"tape"}
    again = mix(pair, tmp_path / "again", 0.8, 0.2)[1]
    assert again.fingerprint() == corpus.fingerprint()


def test_ids_are_unique_and_the_audio_is_the_same_however_it_is_placed(
    pair: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    originals = {(one.root.name, row.utterance_id): one.path_of(row) for one in pair for row in one}
    for audio in ("reference", "link", "copy"):
        result, corpus = mix(pair, tmp_path / audio, audio=audio)
        assert [one["renamed_ids"] for one in result.summary["sources"]] == [60, 60]
        for one in corpus:
            path = originals[one.extra[FROM], one.extra.get("original_id", one.utterance_id)]
            placed = corpus.path_of(one)
            assert (placed.resolve() == path.resolve()) == (audio == "reference")
            assert placed.is_file()
            assert placed.samefile(path) == (audio != "copy")
            np.testing.assert_array_equal(load_audio(placed), load_audio(path))


def test_fewer_hours_lie_inside_more_and_balance_makes_values_equal(
    pair: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    parts = [mix(pair, tmp_path / str(hours), 0.5, 0.5, hours=hours, splits=["train"])[1] for hours in (0.001, 0.003)]
    names = [{(one.extra[FROM], one.text) for one in corpus} for corpus in parts]
    assert names[0] < names[1]
    assert 10.8 - 1.2 <= learnt_s(parts[1]) <= 10.8
    corpus = mix(pair[:1], tmp_path / "balanced", balance="age", splits=["train"])[1]
    ages = {age: sum(one.duration_s for one in corpus if one.age == age) for age in ("6", "7")}
    assert ages["6"] == pytest.approx(ages["7"], abs=0.6)
    assert ages["7"] == pytest.approx(sum(one.duration_s for one in pair[0].split("train") if one.age == "7"))
    natural = mix(pair[:1], tmp_path / "natural", balance="age", temperature=1, splits=["train"])[1]
    assert len(natural) == len(pair[0].split("train"))


def test_copies_are_merged_whatever_their_format_and_an_evaluation_split_keeps_its_own(
    pair: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    first, second = pair
    samples, rate = soundfile.read(first.path_of(first.utterances[0]), dtype="int16")
    soundfile.write(second.root / "audio" / "copy.flac", samples, rate)
    for number, text in enumerate(["Text a 0!", "another text"]):
        copy = row(
            f"copy{number}", file_name="audio/copy.flac", text=text, duration_s=len(samples) / rate, split="train"
        )
        second.utterances.append(copy)
    second.save()
    corpus = mix(pair, tmp_path / "out", deduplicate=True)[1]
    assert len(corpus) == 181  # the same words with other punctuation go, other words on the same audio stay
    assert "copy0" not in {one.utterance_id for one in corpus}
    assert "copy1" in {one.utterance_id for one in corpus}
    assert corpus.card["dropped_by_reason"] == {"the same audio and text as another row": 1}
    first.utterances[0].split = "test"
    first.save()
    with pytest.raises(InputError, match=r"their audio \(2\)"):
        mix(pair, tmp_path / "leak", deduplicate=True)
    dropped = mix(pair, tmp_path / "leak", deduplicate=True, on_leak="drop")[1]
    assert {"copy0", "copy1"}.isdisjoint(one.utterance_id for one in dropped)
    assert dropped.card["dropped_by_reason"]["its audio is in an evaluation split of another corpus"] == 2


def test_shared_speakers_are_a_leak_unless_they_are_other_people(pair: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    second = pair[1]
    for one in second:
        one.speaker_id = "a5" if one.speaker_id == "b0" else one.speaker_id
    second.save()
    count = sum(one.speaker_id == "a5" for one in second)
    with pytest.raises(InputError, match=rf"speaker \({count}\)"):
        mix(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    dropped = mix(pair, tmp_path / "dropped", on_leak="drop")[1]
    tested = {one.speaker_id for one in dropped if one.split == "test"}
    assert tested.isdisjoint(one.speaker_id for one in dropped if one.split == "train")
    assert len(dropped) == 180 - count
    separate = mix(pair, tmp_path / "separate", speakers="separate")[1]
    assert len(separate) == 180
    assert Counter(one.speaker_id for one in separate)["second-a5"] == count


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["first=0.5", "second"], "some corpora have a weight"),
        (["first=0", "second=1"], "must be above 0"),
        (["first", "first"], "given twice"),
        (["first", "nowhere"], "not a speechtune corpus"),
        (["first", "--balance", "tier"], "its columns are"),
        (["first", "--audio", "move"], "choose reference or link or copy"),
        (["first", "--split", "train2"], "has no row in the split train2"),
        (["first", "--hours", "0"], "must be above 0"),
        (["first", "--where", "age<<6"], "cannot be read"),
    ],
)
def test_the_verb_refuses_in_one_sentence(
    pair: tuple[Corpus, Corpus],
    tmp_path: Path,
    speechtune: Callable[..., subprocess.CompletedProcess[str]],
    words: list[str],
    expected: str,
) -> None:
    done = speechtune("mix", *words, "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert expected in json.loads(done.stdout)["error"]
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_verb_writes_a_corpus(
    pair: tuple[Corpus, Corpus], tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = ["first=1", "second=1", "--where", "duration_s<=0.5", "--audio", "link", "--out", "out", "--json", "-q"]
    done = speechtune("mix", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    corpus = Corpus.load(tmp_path / "out")
    assert json.loads(done.stdout)["kept"] == len(corpus)
    assert max(one.duration_s for one in corpus) <= 0.5
    assert speechtune("mix", *words, cwd=tmp_path).returncode == 2
    assert speechtune("mix", *words, "--overwrite", cwd=tmp_path).returncode == 0


def test_a_path_with_an_equals_sign_is_still_a_path() -> None:
    assert parse_source("own=0.8") == MixSource(Path("own"), 0.8)
    assert parse_source("a=b") == MixSource(Path("a=b"))
    assert parse_source("a=b=1") == MixSource(Path("a=b"), 1.0)


def test_of_a_copy_inside_one_corpus_the_evaluation_row_stays(pair: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    first = pair[0]
    given = first.utterances[0]
    first.utterances.append(replace(given, utterance_id="tested", split="test"))
    first.save()
    corpus = mix(pair[:1], tmp_path / "out", deduplicate=True)[1]
    ids = {one.utterance_id for one in corpus}
    assert ("tested" in ids, given.utterance_id in ids) == (True, False)
