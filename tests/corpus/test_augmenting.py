"""Changed copies in a corpus: marked, replayable, in proportion, and only where they may be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechtune.audio.augment import AugmentConfig, AugmentDraw, Augmenter, ConcatenateDraw, apply_concatenation
from speechtune.audio.io import load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus import augmenting
from speechtune.corpus.augmenting import AugmentPlan, augment_corpus, quotas, speech_of
from speechtune.corpus.table import Corpus, Utterance

NOISY = AugmentConfig(
    effects=[
        {"kind": "speed", "factor": [0.9, 1.1]},
        {"kind": "noise", "sources": ["babble", "hum"]},
        {"kind": "gain", "gain_db": [0, 30]},
    ]
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Twenty training clips of four speakers, the last two in one file, and four dev clips."""
    rng = np.random.default_rng(1)
    root = tmp_path / "corpus"
    rows = []
    for number in range(24):
        clip = 0.1 * rng.standard_normal(8_000 + 100 * number)
        name = f"audio/u{number:02d}.flac"
        start_s, end_s = (0.2, 0.6) if number in (18, 19) else (None, None)
        if number == 19:
            name = "audio/u18.flac"
        else:
            write_audio(root / name, clip)
        rows.append(
            Utterance(
                utterance_id=f"u{number:02d}",
                file_name=name,
                text=f"text {number}",
                duration_s=0.4 if start_s else len(clip) / 16_000,
                start_s=start_s,
                end_s=end_s,
                speaker_id=f"s{number % 4}",
                language="en",
                split="dev" if number >= 20 else "train",
                extra={"room": number % 3},
            )
        )
    made = Corpus(root, rows, {"kept": 24})
    made.save()
    return made


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "corpus.json"
    }


def test_copies_are_marked_replayable_and_only_of_the_training_split(corpus: Corpus, tmp_path: Path) -> None:
    result = augment_corpus(corpus, tmp_path / "out", AugmentPlan(NOISY, share=0.5))
    made = Corpus.load(tmp_path / "out")
    originals = {one.utterance_id: one for one in corpus}
    copies = [one for one in made if one.extra.get("augmented_from")]
    assert len(copies) == 10
    assert result.kept == len(made) == 34
    assert result.clean_share == pytest.approx(20 / 30)
    assert [one.to_row() for one in made][:24] == [one.to_row() for one in corpus]
    augmenter = Augmenter(NOISY, speech_of(corpus))
    for one in copies:
        origin = originals[one.extra["augmented_from"]]
        assert origin.split == one.split == "train"
        assert (one.start_s, one.end_s) == (None, None)
        assert (one.text, one.speaker_id, one.language, one.extra["room"]) == (
            origin.text,
            origin.speaker_id,
            "en",
            origin.extra["room"],
        )
        written = load_audio(made.path_of(one))
        assert len(written) / 16_000 == pytest.approx(one.duration_s, abs=1e-4)
        source = load_audio(corpus.path_of(origin), origin.start_s, origin.end_s)
        again = augmenter.apply(AugmentDraw.from_json(one.extra["augment_draw"]), source)
        assert written == pytest.approx(again, abs=1 / 32_768)
        assert np.abs(written).max() < 1.0
    assert any('gain_db": -' in one.extra["augment_draw"] for one in copies)  # what was too loud was turned down
    for one in made.utterances[:24]:
        assert np.array_equal(load_audio(made.path_of(one)), load_audio(corpus.path_of(one)))


def test_the_same_seed_gives_the_same_bytes_however_many_workers(corpus: Corpus, tmp_path: Path) -> None:
    plan = AugmentPlan(NOISY, share=2.5, empty_share=0.2, join_share=0.5, seed=3)
    augment_corpus(corpus, tmp_path / "a", plan, workers=1)
    augment_corpus(corpus, tmp_path / "b", plan, workers=2)  # more than fifty clips: two processes
    assert len(files(tmp_path / "a")) > 80
    assert files(tmp_path / "a") == files(tmp_path / "b")
    augment_corpus(corpus, tmp_path / "c", replace(plan, seed=4), workers=1)
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_an_interrupted_run_goes_on_and_ends_the_same(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = AugmentPlan(NOISY, share=1.0)
    augment_corpus(corpus, tmp_path / "whole", plan)
    made = augmenting._make
    calls: list[str] = []

    def failing(piece: tuple[augmenting._Job, Path]) -> dict[str, object]:
        calls.append(piece[0].name)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return made(piece)

    monkeypatch.setattr(augmenting, "_make", failing)
    with pytest.raises(KeyboardInterrupt):
        augment_corpus(corpus, tmp_path / "out", plan, workers=1)
    assert not (tmp_path / "out").exists()
    calls.clear()
    monkeypatch.setattr(augmenting, "_make", lambda piece: calls.append(piece[0].name) or made(piece))
    augment_corpus(corpus, tmp_path / "out", plan, workers=1)
    assert len(calls) == 13  # seven of twenty were already there
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_another_plan_does_not_reuse_what_an_interrupted_one_left(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = augmenting._make
    calls: list[str] = []

    def failing(piece: tuple[augmenting._Job, Path]) -> dict[str, object]:
        calls.append(piece[0].name)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return made(piece)

    monkeypatch.setattr(augmenting, "_make", failing)
    with pytest.raises(KeyboardInterrupt):
        augment_corpus(corpus, tmp_path / "out", AugmentPlan(NOISY, share=1.0), workers=1)
    monkeypatch.setattr(augmenting, "_make", made)
    other = AugmentPlan(NOISY, share=1.0, seed=9)  # the same clips, drawn otherwise
    augment_corpus(corpus, tmp_path / "out", other, workers=1)
    augment_corpus(corpus, tmp_path / "fresh", other, workers=1)
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_a_mixture_has_its_proportions_over_the_whole(corpus: Corpus, tmp_path: Path) -> None:
    config = AugmentConfig(mixture={"clean": 0.4, "phone_mic": 0.35, "telephone": 0.25})
    result = augment_corpus(corpus, tmp_path / "out", AugmentPlan(config))
    assert result.clean_share == pytest.approx(0.4)
    assert result.added["phone_mic"] == pytest.approx(0.35 * 50, abs=1)
    assert result.added["telephone"] == pytest.approx(0.25 * 50, abs=1)
    made = Corpus.load(tmp_path / "out")
    times = Counter(one.extra["augmented_from"] for one in made if one.extra.get("augmented_from"))
    assert set(times.values()) == {1, 2}  # 30 copies of 20 clips, dealt evenly


def test_quotas_are_within_one_and_add_up() -> None:
    for count in range(40):
        shares = {"a": 0.3, "b": 0.15, "c": 0.1, "d": 0.05}
        dealt = quotas(count, shares)
        assert sum(dealt.values()) == count
        assert all(abs(dealt[name] - count * share / 0.6) < 1 for name, share in shares.items())


def test_joined_clips_are_their_parts_and_empty_ones_have_no_words(corpus: Corpus, tmp_path: Path) -> None:
    plan = AugmentPlan(AugmentConfig(max_duration_s=2.5), join_share=1.0, empty_share=0.25)
    result = augment_corpus(corpus, tmp_path / "out", plan)
    made = Corpus.load(tmp_path / "out")
    originals = {one.utterance_id: one for one in corpus}
    joined = [one for one in made if one.utterance_id.endswith("-joined")]
    assert len(joined) == result.added["joined"] > 3
    for one in joined:
        draw = ConcatenateDraw.from_json(json.loads(one.extra["augment_draw"]))
        parts = [originals[name] for name in draw.utterance_ids]
        assert one.text == " ".join(part.text for part in parts)
        assert {part.speaker_id for part in parts} == {one.speaker_id}
        expected = apply_concatenation(
            draw, [load_audio(corpus.path_of(part), part.start_s, part.end_s) for part in parts]
        )
        assert load_audio(made.path_of(one)) == pytest.approx(expected, abs=1 / 32_768)
        assert one.duration_s <= 2.5
    empty = [one for one in made if not one.text]
    assert len(empty) == 5
    assert all(one.split == "train" and one.speaker_id is None for one in empty)


def test_a_test_set_of_changed_clips_only(corpus: Corpus, tmp_path: Path) -> None:
    plan = AugmentPlan(AugmentConfig(preset="telephone"), share=1.0, splits=("dev",), only_changed=True)
    result = augment_corpus(corpus, tmp_path / "out", plan)
    made = Corpus.load(tmp_path / "out")
    assert sorted(one.extra["augmented_from"] for one in made) == ["u20", "u21", "u22", "u23"]
    assert {one.split for one in made} == {"dev"}
    assert result.clean_share == 0
    assert not (tmp_path / "out/audio").exists()


def test_copies_are_not_copied_again(corpus: Corpus, tmp_path: Path) -> None:
    augment_corpus(corpus, tmp_path / "once", AugmentPlan(NOISY, share=0.5))
    result = augment_corpus(Corpus.load(tmp_path / "once"), tmp_path / "twice", AugmentPlan(NOISY, share=0.5, seed=1))
    assert result.dropped_by_reason == {"changed copies left as they are": 10}
    assert result.added == {"effects": 10}
    assert len({one.utterance_id for one in Corpus.load(tmp_path / "twice")}) == 44


def test_faults_are_one_sentence_and_leave_nothing(corpus: Corpus, tmp_path: Path) -> None:
    for plan, message in (
        (AugmentPlan(NOISY, splits=("trian",)), r"no utterance in split 'trian' \(it has: dev, train\)"),
        (AugmentPlan(NOISY, share=-1.0), "a share is negative"),
        (AugmentPlan(AugmentConfig(preset="second_place", noise_dir=str(tmp_path / "no"))), "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            augment_corpus(corpus, tmp_path / "out", plan)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is the corpus itself"):
        augment_corpus(corpus, corpus.root, AugmentPlan(NOISY), overwrite=True)
    (corpus.root / "audio/u03.flac").write_bytes(b"")
    with pytest.raises(InputError, match=r"u03\.flac has zero bytes"):
        augment_corpus(corpus, tmp_path / "out", AugmentPlan(NOISY, share=1.0))


def test_two_runs_at_once_do_not_share_a_directory(tmp_path: Path) -> None:
    from speechtune.corpus.resumable import resumable_directory

    with resumable_directory(tmp_path / "out", "key") as shop:
        shop.finish("a", {"n": 1})
        with (
            pytest.raises(InputError, match="another process is writing"),
            resumable_directory(tmp_path / "out", "key"),
        ):
            pass
        (shop.folder / "file").write_text("x")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_torn_last_line_of_the_log_is_passed_over(tmp_path: Path) -> None:
    from speechtune.corpus.resumable import resumable_directory

    def fail() -> None:
        with resumable_directory(tmp_path / "out", "key") as shop:
            shop.finish("a", {"n": 1})
            shop.finish("b", {"n": 2})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    log = tmp_path / ".out.unfinished" / ".done.jsonl"
    log.write_text(log.read_text()[:-4])
    with resumable_directory(tmp_path / "out", "key") as shop:
        assert shop.done == {"a": {"n": 1}}
        shop.finish("b", {"n": 3})
        log_text = log.read_text()
    assert [json.loads(line) for line in log_text.split("\n") if line.endswith("]")] == [
        ["a", {"n": 1}],
        ["b", {"n": 3}],
    ]


Command = Callable[..., object]


def test_the_verb_writes_a_page_and_a_corpus(speechtune: Command, corpus: Corpus, tmp_path: Path) -> None:
    done = speechtune(
        "augment",
        corpus.root,
        "--preset",
        "phone_mic",
        "--preview",
        tmp_path / "page.html",
        "--examples",
        3,
        "--out",
        tmp_path / "out",
        "--share",
        0.25,
        "--json",
    )
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    facts = json.loads(done.stdout)  # type: ignore[attr-defined]
    assert facts["preview"]["examples"] == 3
    assert facts["added"] == {"phone_mic": 5}
    assert len(Corpus.load(tmp_path / "out")) == 29
    for words, message in (
        (("--preset", "phone_mic"), "nothing to write"),
        (("--preset", "phone_mik", "--out", tmp_path / "x"), "did you mean phone_mic"),
        (("--out", tmp_path / "x"), "no effects are given"),
    ):
        failed = speechtune("augment", corpus.root, *words)
        assert failed.returncode == 2  # type: ignore[attr-defined]
        assert message in failed.stderr  # type: ignore[attr-defined]
        assert "Traceback" not in failed.stderr  # type: ignore[attr-defined]
