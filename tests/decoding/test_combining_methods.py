"""MBR against brute force and by hand, agreement, rescoring, and reading transcript files."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.together.hypotheses import candidates_of, least_expected_error
from speechtune.decoding.together.methods import MbrOptions, combine_agree, combine_mbr
from speechtune.decoding.together.rescoring import combine_rescored, judge_lists
from speechtune.decoding.together.systems import System, read_systems, words_of
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.models.family import load_family


def listed(name: str, *rows: tuple[str, float]) -> Transcript:
    """A transcript with an N-best list of texts and summed log-probabilities."""
    nbest = [{"text": text, "log_prob": score / 5, "sum_log_prob": score, "tokens": 5} for text, score in rows]
    return Transcript(utterance_id=name, text=rows[0][0], log_prob=rows[0][1] / 5, nbest=nbest)


def distance(a: list[str], b: list[str]) -> int:
    """Edit distance by its definition."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i + 1, j + 1] = min(table[i, j] + (a[i] != b[j]), table[i, j + 1] + 1, table[i + 1, j] + 1)
    return int(table[-1, -1])


def test_mbr_takes_what_a_search_through_all_candidates_finds() -> None:
    rng = random.Random(3)
    for _ in range(50):
        texts = [" ".join(rng.choice("abc") for _ in range(rng.randint(0, 5))) for _ in range(6)]
        systems = [
            listed("u", *((text, rng.uniform(-6, 0)) for text in texts[:4])),
            listed("u", *((t, -1.0) for t in texts[2:])),
        ]
        scale, weights = rng.choice([0.2, 1.0, 3.0]), [rng.uniform(0.1, 1), 1.0]
        joint: dict[str, float] = {}
        for system, weight in zip(systems, weights, strict=True):
            powers = [math.exp(scale * row["sum_log_prob"]) for row in system.nbest]
            for row, power in zip(system.nbest, powers, strict=True):
                joint[row["text"]] = joint.get(row["text"], 0) + weight / sum(weights) * power / sum(powers)
        found = candidates_of(systems, str.split, scale, weights)
        assert {one.text: pytest.approx(one.probability) for one in found} == joint
        risk = {text: sum(p * distance(text.split(), other.split()) for other, p in joint.items()) for text in joint}
        assert risk[found[least_expected_error(found)].text] == pytest.approx(min(risk.values()))


def test_mbr_can_take_a_text_that_is_first_nowhere() -> None:
    systems = [listed("u", ("a b x", -1.0), ("a b c", -1.1)), listed("u", ("y b c", -1.0), ("a b c", -1.1))]
    made = combine_mbr([System(f"s{n}", {"u": one}, {}) for n, one in enumerate(systems)], spoken_words, MbrOptions())
    assert made[0].text == "a b c"
    assert sum(row["probability"] for row in made[0].nbest) == pytest.approx(1.0, abs=1e-5)


def test_a_high_scale_leaves_each_list_its_first_and_a_list_without_scores_is_refused() -> None:
    one = listed("u", ("b", -1.0), ("a c d", -1.5), ("a c d e", -1.6))
    best = [combine_mbr([System("s", {"u": one}, {})], spoken_words, MbrOptions(scale)) for scale in (100.0, 0.0)]
    assert [made[0].text for made in best] == ["b", "a c d"]
    bare = Transcript(utterance_id="u", text="a", nbest=[{"text": "a"}])
    with pytest.raises(InputError, match="no sum_log_prob"):
        combine_mbr([System("s", {"u": bare}, {})], spoken_words, MbrOptions())


def systems_of(*texts: str) -> list[System]:
    return [
        System(f"s{number}", {"u": Transcript(utterance_id="u", text=text)}, {}) for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("texts", "least", "expected", "flag"),
    [
        (("a", "b", "B."), 0, "b", "agreed-2"),
        (("a", "b", "c"), 0, "a", "disputed"),
        (("a", "b", "b"), 3, "a", "disputed"),
        (("a", "b", "a", "b"), 2, "a", "agreed-2"),
    ],
)
def test_agreement_or_else_the_first(texts: tuple[str, ...], least: int, expected: str, flag: str) -> None:
    (made,) = combine_agree(systems_of(*texts), spoken_words, least)
    assert (made.text, made.flags) == (expected, [flag])


def test_more_agreement_than_systems_is_refused() -> None:
    with pytest.raises(InputError, match="--agree 4 is not possible with 3"):
        combine_agree(systems_of("a", "b", "c"), spoken_words, 4)


def test_rescoring_orders_lists_by_the_mixture_of_both_models(tiny_model: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus).split("dev")
    rows = [("the thing", -4.0), ("sing", -4.5), ("in the inn", -9.0)]
    system = System("s", {one.utterance_id: listed(one.utterance_id, *rows) for one in corpus}, {})
    family = load_family(tiny_model)
    opened = OpenedModel(tiny_model, family, DecodingConfig(batch_size=2))
    judged = judge_lists(system, corpus, opened)
    from speechtune.audio.io import load_audio

    for utterance in corpus:
        frames = family.context_frames(utterance.duration_s + 0.2)
        waveform = load_audio(corpus.path_of(utterance))
        alone = label_likelihoods(family, [waveform], [[text for text, _ in rows]], frames)[0]
        # In a batch, shorter clips have the longest one's context.
        assert np.corrcoef(judged[utterance.utterance_id], [one.total for one in alone if one])[0, 1] > 0.99
    for weight in (0.0, 0.3, 1.0):
        for made in combine_rescored(system, judged, weight):
            own = judged[made.utterance_id]
            totals = [(1 - weight) * score + weight * other for (_, score), other in zip(rows, own, strict=True)]
            assert made.text == rows[int(np.argmax(totals))][0]
            assert [row["total"] for row in made.nbest] == sorted(totals, reverse=True)
    with pytest.raises(InputError, match="is transcribed and not in"):
        judge_lists(system, corpus.subset(lambda one: one.utterance_id != "u17"), opened)


def test_files_of_other_utterances_and_wrong_confidences_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "dev.jsonl", tmp_path / "b" / "dev.jsonl"
    for path, names in ((one, "xy"), (two, "xz")):
        path.parent.mkdir()
        write_transcripts(path, [Transcript(utterance_id=name, text="hello there") for name in names])
    with pytest.raises(InputError, match=r"lacks 1 utterances than .* \('y'\)"):
        read_systems([one, two])
    assert [system.name for system in read_systems([one, one.with_name("dev.jsonl")])] != ["dev", "dev"]
    row = {"utterance_id": "x", "text": "hello there", "words": [{"confidence": 0.5}, {"confidence": 0.9}]}
    one.write_text(json.dumps(row))
    (system,) = read_systems([one])
    assert [word.confidence for word in system.words("x", spoken_words)] == [0.5, 0.9]
    one.write_text(json.dumps({**row, "text": "hello"}))
    with pytest.raises(InputError, match="row 1 has 2 words with confidence and 1 in its text"):
        read_systems([one])


def test_punctuation_alone_joins_the_word_before() -> None:
    found = words_of("- Oh , no !", spoken_words)
    assert [(word.key, word.surface) for word in found] == [("oh", "Oh ,"), ("no", "no !")]
