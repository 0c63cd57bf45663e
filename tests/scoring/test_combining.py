"""Oracles by brute force, learned selection that must not see its speakers, and the command."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.together.rover import build_network
from speechtune.decoding.together.systems import System, words_of
from speechtune.decoding.transcript import Transcript, read_transcripts, write_transcripts
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.combining import CombineOptions, combine
from speechtune.scoring.learned_selection import FEATURES, features_of, select
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.oracle import network_errors, oracle

PLAIN = get_normaliser("whisper-basic")


def test_the_network_oracle_is_the_best_of_all_its_paths() -> None:
    rng = random.Random(2)
    for _ in range(150):
        reference = [rng.choice("abc") for _ in range(rng.randint(0, 5))]
        texts = [[rng.choice("abc") for _ in range(rng.randint(0, 4))] for _ in range(3)]
        network = build_network([words_of(" ".join(text), str.split) for text in texts])
        paths = itertools.product(*[{word.key if word else None for _, word in slot} for slot in network])
        best = min(word_counts(" ".join(reference), " ".join(w for w in path if w)).errors for path in paths)
        assert network_errors(reference, network) == best


def corpus_of(count: int, speakers: int = 8) -> Corpus:
    rng = random.Random(1)
    texts = [" ".join(rng.choice(("red", "blue", "green", "cat", "dog")) for _ in range(6)) for _ in range(count)]
    return Corpus(
        Path("somewhere"),
        [
            Utterance(
                utterance_id=f"u{number:03d}",
                file_name="",
                text=text,
                duration_s=3.0,
                speaker_id=f"s{number % speakers}",
                language="en",
            )
            for number, text in enumerate(texts)
        ],
    )


def systems_of(corpus: Corpus, seed: int = 0) -> list[System]:
    """Two systems; each is wrong where its log-probability is low, one or the other in turn by chance."""
    rng = random.Random(seed)
    made: list[dict[str, Transcript]] = [{}, {}]
    for utterance in corpus:
        wrong = rng.randrange(2)
        for number, transcripts in enumerate(made):
            words = utterance.text.split()
            if number == wrong:
                words[:3] = ["moo"] * 3
            transcripts[utterance.utterance_id] = Transcript(
                utterance_id=utterance.utterance_id,
                text=" ".join(words),
                log_prob=-1.5 + rng.gauss(0, 0.2) if number == wrong else -0.2 + rng.gauss(0, 0.2),
            )
    return [System(f"s{number}", transcripts, {}) for number, transcripts in enumerate(made)]


def test_selection_learns_what_the_scores_say() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    corpus = corpus_of(160)
    systems = systems_of(corpus)
    report = combine(systems, CombineOptions(method="select", resamples=200), corpus)
    assert report.score and report.score.wer is not None and report.oracle
    assert report.oracle.hypothesis == 0
    assert all(score.wer is not None and score.wer > 0.2 for score in report.scores)
    assert report.score.wer < 0.03
    assert report.taken and sum(report.taken.values()) == 160


def test_what_a_speaker_s_own_references_say_does_not_decide_for_that_speaker() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    corpus, rng = corpus_of(120, speakers=6), random.Random(4)
    systems = systems_of(corpus)
    before = select(corpus, systems, PLAIN, folds=6)
    changed = Corpus(corpus.root, [Utterance.from_row(one.to_row()) for one in corpus])
    for utterance in changed:
        if utterance.speaker_id == "s3":
            utterance.text = " ".join(rng.choice(("moo", "red")) for _ in range(6))
    after = select(changed, systems, PLAIN, folds=6)
    own = {one.utterance_id for one in corpus if one.speaker_id == "s3"}
    texts = [{one.utterance_id: one.text for one in found.transcripts} for found in (before, after)]
    assert all(texts[0][name] == texts[1][name] for name in own)
    assert texts[0] != texts[1], "the changed references changed nothing, so the test shows nothing"


def test_unseen_utterances_are_decided_and_features_are_named() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    corpus = corpus_of(120)
    systems = systems_of(corpus)
    part = corpus.subset(lambda one: one.speaker_id != "s0")
    found = select(part, systems, PLAIN)
    assert len(found.transcripts) == 120
    right = {one.utterance_id: one.text for one in corpus}
    unseen = [one for one in found.transcripts if one.utterance_id not in {own.utterance_id for own in part}]
    assert np.mean([one.text == right[one.utterance_id] for one in unseen]) > 0.9
    assert features_of(systems, "u000", 3.0, PLAIN).shape == (2, len(FEATURES))


def test_an_oracle_is_never_worse_than_any_system_and_lists_and_paths_only_add() -> None:
    corpus = corpus_of(40)
    systems = systems_of(corpus)
    for transcript in systems[0].transcripts.values():
        transcript.nbest = [{"text": transcript.text}, {"text": "red blue"}]
    found = oracle(corpus, systems, PLAIN)
    assert found.list is not None and found.hypothesis is not None and found.path is not None
    assert found.list <= found.hypothesis and found.path <= found.hypothesis


Command = Any


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A corpus table and three transcript files of it."""
    corpus = corpus_of(30)
    (tmp_path / "corpus").mkdir()
    for number, utterance in enumerate(corpus):
        utterance.split = "dev" if number < 24 else "test"
    Corpus(tmp_path / "corpus", corpus.utterances).save()
    paths = []
    for number, system in enumerate([*systems_of(corpus), systems_of(corpus, 5)[0]]):
        paths.append(tmp_path / f"s{number}.jsonl")
        write_transcripts(paths[-1], list(system.transcripts.values()))
    return tmp_path / "corpus", paths


def test_the_command_writes_transcripts_and_reports_differences(
    speechtune: Command, files: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    corpus, paths = files
    out = tmp_path / "out.jsonl"
    done = speechtune("combine", *paths, "--out", out, "--corpus", corpus, "--split", "dev", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kept"] == 30 and result["score"]["utterances"] == 24
    assert [one["name"] for one in result["systems"]] == ["s0", "s1", "s2"]
    for one in result["systems"]:
        gap = result["score"]["wer"] - one["score"]["wer"]
        assert one["difference"]["difference"] == pytest.approx(gap, abs=1e-9)
    assert result["oracle"]["wer_best_network_path"] <= result["score"]["wer"]
    assert len(read_transcripts(out)) == 30
    again = speechtune("combine", *paths, "--out", out)
    assert again.returncode == 2 and "add --overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "select"], "needs references: add --corpus"),
        (["--method", "vote"], "unknown: use one of rover"),
        (["--vote", "loud"], "use one of frequency"),
        (["--method", "rescore"], "needs the model that judges"),
        (["--method", "mbr", "--weight", "1"], "1 weights are given for 3 systems"),
        (["--alpha", "2"], "--alpha and --null-confidence are shares"),
        (["--method", "agree", "--agree", "9"], "--agree 9 is not possible"),
    ],
)
def test_wrong_options_are_one_sentence(
    files: tuple[Path, list[Path]], tmp_path: Path, words: list[str], message: str
) -> None:
    from typer.testing import CliRunner

    from speechtune.cli.app import build

    given = ["combine", *map(str, files[1]), "--out", str(tmp_path / "o.jsonl"), *words]
    done = CliRunner().invoke(build(), given)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_utterance_without_transcript_is_named(files: tuple[Path, list[Path]], tmp_path: Path) -> None:
    from speechtune.scoring.combining import combine_files

    corpus, paths = files
    for path in paths:
        write_transcripts(path, read_transcripts(path)[1:])
    with pytest.raises(InputError, match=r"lacks 1 of the 30 utterances .*'u000'"):
        combine_files(paths, tmp_path / "o.jsonl", CombineOptions(), corpus=corpus)
