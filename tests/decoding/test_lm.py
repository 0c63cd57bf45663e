"""N-gram models: smoothing by hand and by law, ARPA, KenLM's answers, mixtures, perplexity, the verbs."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.decoding.lm.arpa import read_arpa, read_npz, write_arpa, write_npz
from speechtune.decoding.lm.loading import load_lm
from speechtune.decoding.lm.mixture import Mixture, merge, perplexity, tune_weights
from speechtune.decoding.lm.model import BEGIN, END, UNKNOWN, LanguageModel, NgramModel, sentence_log_prob
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.lm.training import train_ngram

Command = Callable[..., subprocess.CompletedProcess[str]]


def text(seed: int, sentences: int = 300) -> list[list[str]]:
    """Sentences of a random bigram language with a long tail of words."""
    rng = np.random.default_rng(seed)
    size = 500
    table = 1 / np.arange(1, size + 1) ** 1.1 * rng.gamma(0.2, 1.0, (20, size))
    table /= table.sum(axis=1, keepdims=True)
    made = []
    for _ in range(sentences):
        words: list[str] = []
        last = 0
        for _ in range(int(rng.integers(1, 9))):
            last = int(rng.choice(size, p=table[last % 20]))
            words.append(f"w{last}")
        made.append(words)
    return made


SMALL = [line.split() for line in ("a b a b c", "a b d", "b a", "c c a b", "d a b a", "e", "a c", "f b")]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell"])
def test_the_probabilities_after_any_history_sum_to_one(smoothing: str) -> None:
    model = train_ngram(text(0), 3, smoothing).model  # type: ignore[arg-type]
    following = [word for word in model.words if word != BEGIN]
    rng = np.random.default_rng(0)
    histories = [(), *((word,) for word in rng.choice(model.words, 15)), *map(tuple, rng.choice(model.words, (40, 2)))]
    seen = [tuple(row) for row in model.ngrams(2)[:40]]
    for history in [*(tuple(model.id_of(word) for word in one) for one in histories), *seen]:
        state = model._shortened((-5, *history)) if history else ()
        total = sum(math.exp(model.score(state, word)[0]) for word in following)
        assert total == pytest.approx(1.0, abs=2e-5)


def test_kneser_ney_equals_the_definition_computed_plainly() -> None:
    """Chen & Goodman's recursion written out for single queries, over counts made in another way."""
    sentences = text(1)
    trained = train_ngram(sentences, 3, "kneser-ney")
    padded = [[BEGIN, *one, END] for one in sentences]
    grams = {n: Counter(tuple(one[at : at + n]) for one in padded for at in range(len(one) - n + 1)) for n in (1, 2, 3)}

    def adjusted(ngram: tuple[str, ...]) -> int:
        if len(ngram) == 3 or ngram[0] == BEGIN:
            return grams[len(ngram)][ngram]
        return sum(1 for longer in grams[len(ngram) + 1] if longer[1:] == ngram)

    tables = {n: {one: adjusted(one) for one in grams[n] if one != (BEGIN,)} for n in (1, 2, 3)}
    cuts = {}
    for n, table in tables.items():
        t = Counter(table.values())
        y = t[1] / (t[1] + 2 * t[2])
        cuts[n] = [0, 1 - 2 * y * t[2] / t[1], 2 - 3 * y * t[3] / t[2], 3 - 4 * y * t[4] / t[3]]
    assert [list(one) for one in trained.discounts] == [pytest.approx(cuts[n][1:]) for n in (1, 2, 3)]
    kinds = {word for (word,) in tables[1]}

    def probability(history: tuple[str, ...], word: str) -> float:
        n = len(history) + 1
        below = probability(history[1:], word) if history else 1 / (len(kinds) + 1)
        own = {one[-1]: count for one, count in tables[n].items() if one[:-1] == history}
        if not own:
            return below
        total = sum(own.values())
        kept = max(own.get(word, 0) - cuts[n][min(own.get(word, 0), 3)], 0)
        return kept / total + sum(cuts[n][min(count, 3)] for count in own.values()) / total * below

    rng = np.random.default_rng(2)
    cases = [*list(tables[3])[:60], *(tuple(rng.choice(sorted(kinds - {END}), 3)) for _ in range(60))]
    for one, two, word in cases:
        state = trained.model._shortened((-5, trained.model.id_of(one), trained.model.id_of(two)))
        assert math.exp(trained.model.score(state, word)[0]) == pytest.approx(probability((one, two), word), rel=1e-5)


def test_a_unigram_model_worked_out_by_hand() -> None:
    """Counts: six words once, three twice, two thrice, one four times, the end 2 times; D1 = 1 - 2 y 4/6 and so on."""
    words = ["a", "b", "c", "d", "e", "f"] + ["g", "h", "i"] * 2 + ["j", "k"] * 3 + ["l"] * 4
    model = train_ngram([words[:11], words[11:]], 1, "kneser-ney")
    # The end occurs twice, so four kinds occur twice.
    y = 6 / (6 + 2 * 4)
    one, two, three = 1 - 2 * y * 4 / 6, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2
    assert model.discounts == [pytest.approx((one, two, three))]
    total = 6 + 4 * 2 + 2 * 3 + 4
    freed = (6 * one + 4 * two + 3 * three) / total
    uniform = 1 / 14  # twelve words, the end, the unknown word
    for word, count, cut in (("a", 1, one), ("g", 2, two), (END, 2, two), ("j", 3, three), ("l", 4, three)):
        expected = (count - cut) / total + freed * uniform
        assert math.exp(model.model.score((), word)[0]) == pytest.approx(expected, rel=1e-6)
    assert math.exp(model.model.score((), "never")[0]) == pytest.approx(freed * uniform, rel=1e-6)


def test_witten_bell_by_hand_and_as_the_way_out_for_little_text() -> None:
    trained = train_ngram([["a", "b"], ["a", "c"]], 2)
    assert trained.smoothing == "witten-bell"
    with pytest.raises(InputError, match="too small for Kneser-Ney"):
        train_ngram([["a", "b"], ["a", "c"]], 2, "kneser-ney")
    # Unigrams: a 2, b 1, c 1, end 2: 6 in all, 4 kinds, 5 words with the unknown one.
    b = (1 + 4 / 5) / (6 + 4)
    assert math.exp(trained.model.score((), "b")[0]) == pytest.approx(b, rel=1e-6)
    # After a: b 1, c 1, two kinds.
    after = (trained.model.id_of("a"),)
    assert math.exp(trained.model.score(after, "b")[0]) == pytest.approx((1 + 2 * b) / (2 + 2), rel=1e-6)
    a = (2 + 4 / 5) / 10
    assert math.exp(trained.model.score(after, "a")[0]) == pytest.approx(2 / 4 * a, rel=1e-6)


@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz", "m.npz"])
def test_files_hold_the_whole_model(tmp_path: Path, name: str) -> None:
    model = train_ngram(text(3), 3).model
    (write_npz if name.endswith("npz") else write_arpa)(model, tmp_path / name)
    again = load_lm(str(tmp_path / name))
    for sentence in [*text(4, 30), ["w1", "zzz", "w2"], []]:
        assert sentence_log_prob(again, sentence) == pytest.approx(sentence_log_prob(model, sentence), abs=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_lines_above_data_are_passed_over_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    write_arpa(train_ngram(SMALL, 2).model, path)
    whole = path.read_text()
    path.write_text("made by hand\n\n" + whole)
    assert read_arpa(path).knows("a")
    path.write_text(whole.replace("\\end\\", ""))
    with pytest.raises(InputError, match=r"m\.arpa is not a readable ARPA .*cut off"):
        read_arpa(path)
    path.write_text(whole.replace("\\2-grams:", "\\2-grams:\n-1.0 a nowhere"))
    with pytest.raises(InputError, match="not a readable ARPA"):
        read_arpa(path)
    with pytest.raises(InputError, match="does not exist"):
        read_arpa(tmp_path / "none.arpa")
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="regenerate"):
        read_npz(path)


@pytest.mark.parametrize("judge", ["kenlm", "plain_kenlm"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_scores_equal_kenlms_and_the_definition(tmp_path: Path, order: int, judge: str) -> None:
    kenlm = pytest.importorskip(judge, reason="KenLM's Python package is not installed")
    model = train_ngram(text(5), order).model
    write_arpa(model, tmp_path / "m.arpa")
    theirs = kenlm.Model(str(tmp_path / "m.arpa"))
    for sentence in [*text(6, 60), ["w1", "zzz", "w2"], ["zzz"], []]:
        expected = theirs.score(" ".join(sentence)) * math.log(10)
        assert sentence_log_prob(model, sentence) == pytest.approx(expected, abs=1e-4)
        assert sentence_log_prob(read_arpa(tmp_path / "m.arpa"), sentence) == pytest.approx(expected, abs=1e-4)


def test_kenlm_as_a_backend_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="KenLM's Python package is not installed")
    from speechtune.decoding.lm.loading import KenlmModel

    model = train_ngram(text(7), 3).model
    write_arpa(model, tmp_path / "m.arpa")
    backend: LanguageModel = KenlmModel(tmp_path / "m.arpa")
    for sentence in text(8, 40):
        assert sentence_log_prob(backend, sentence) == pytest.approx(sentence_log_prob(model, sentence), abs=1e-4)
    assert backend.knows("w1") and not backend.knows("zzz")
    assert hash(backend.begin()) == hash(backend.begin())


def test_many_queries_at_once_equal_single_ones() -> None:
    model = train_ngram(text(9), 3).model
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(model.words), (300, 3))
    rows = np.concatenate([rows, model.ngrams(3)[:100]])
    found = model.log10_probs(rows)
    for row, one in zip(rows.tolist(), found, strict=True):
        expected = model._score(tuple(row[:2]), row[2])[0] / math.log(10)
        assert one == pytest.approx(expected, abs=1e-5)


def test_a_merged_model_is_the_mixture_and_sums_to_one() -> None:
    first, second = train_ngram(text(10), 3).model, train_ngram(text(11), 2).model
    mixed = Mixture([first, second], [3, 1])
    assert mixed.weights == [0.75, 0.25]
    merged = merge([first, second], [0.75, 0.25])
    for row in itertools.chain(merged.ngrams(2)[::7], merged.ngrams(3)[::7]):
        words = [merged.words[one] for one in row]
        if words[0] != BEGIN:
            continue
        state = mixed.begin()
        for word in words[1:-1]:
            state = mixed.score(state, word)[1]
        expected = mixed.score(state, words[-1])[0]
        got = merged._score(tuple(row[:-1].tolist()), int(row[-1]))[0]
        assert got == pytest.approx(expected, abs=2e-3)
    following = [word for word in merged.words if word != BEGIN]
    for history in [(), *map(tuple, merged.ngrams(2)[::50].tolist()), *((one,) for one in range(0, 60, 9))]:
        total = sum(math.exp(merged.score(history, word)[0]) for word in following)
        assert total == pytest.approx(1.0, abs=1e-4)


def test_tuned_weights_are_the_best_of_a_fine_grid() -> None:
    first, second = train_ngram(text(12), 2).model, train_ngram(text(13), 2).model
    held = text(12, 400)[300:] + text(13, 340)[300:]
    weight = tune_weights([first, second], held)[0]
    grid = np.linspace(0.01, 0.99, 99)
    best = min(grid, key=lambda one: perplexity(Mixture([first, second], [one, 1 - one]), held)["perplexity"])
    assert weight == pytest.approx(best, abs=0.011)
    assert 0.3 < weight < 0.99


def test_perplexity_counts_ends_and_unknown_words() -> None:
    model = train_ngram([["a", "b"], ["a", "c"]], 1).model
    facts = perplexity(model, [["a"], ["zzz"]])
    probabilities = [math.exp(model.score((), word)[0]) for word in ("a", END, UNKNOWN, END)]
    assert facts["perplexity"] == pytest.approx(math.prod(probabilities) ** -0.25)
    assert facts["perplexity_known"] == pytest.approx((probabilities[0] * probabilities[1] ** 2) ** (-1 / 3))
    assert (facts["words"], facts["unknown_words"]) == (2, 1)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("WE CALL IT BEAR", "we call it bear"),
        ("\u201cDon\u2019t!\u201d she said\u2014it\u2019s fine.", "don't she said it's fine"),
        ("the boys' 'em rock 'n' roll '", "the boys 'em rock 'n roll"),
        ("well-known, 3.5 x", "well known 3 5 x"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
    ],
)
def test_spoken_words(written: str, words: str) -> None:
    assert spoken_words(written) == words.split()


def test_words_that_a_model_cannot_have_are_refused() -> None:
    with pytest.raises(InputError, match="holds '<s>' as a word"):
        train_ngram([["a", "<s>", "b"]], 2)
    with pytest.raises(InputError, match="holds '</s>' as a word"):
        train_ngram([["a", "</s>", "b"]], 2)
    with pytest.raises(InputError, match="no text"):
        train_ngram([[]], 2)


def test_the_verbs_train_mix_and_judge(speechtune: Command, tiny_corpus: Path, tmp_path: Path) -> None:
    general = tmp_path / "general.txt"
    general.write_text("\n".join(" ".join(one) for one in text(14)) + "\n")
    own, other, both = tmp_path / "own.arpa", tmp_path / "other.npz", tmp_path / "both.arpa.gz"
    done = speechtune("lm", "train", tiny_corpus, "--split", "train", "--order", "2", "--out", own, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["smoothing"] == "witten-bell"
    assert json.loads(speechtune("lm", "train", general, "--out", other, "--json").stdout)["smoothing"] == "kneser-ney"
    mixed = speechtune("lm", "mix", own, other, "--tune", tiny_corpus, "--split", "dev", "--out", both, "--json")
    assert json.loads(mixed.stdout)["weights"][0] > 0.9, mixed.stderr
    judged = json.loads(speechtune("lm", "perplexity", both, tiny_corpus, "--split", "dev", "--json").stdout)
    assert judged["unknown_words"] == 0
    again = speechtune("lm", "train", general, "--out", other)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    spec = f"{own}:0.5+{other}:0.5"
    assert json.loads(speechtune("lm", "perplexity", spec, general, "--json").stdout)["perplexity"] > 1
    assert isinstance(read_arpa(both), NgramModel)


def test_sphinx_binaries_read_as_sphinx_itself_reads_them(tmp_path: Path) -> None:
    """Pocketsphinx turns an ARPA file into its binary; what is read back must score alike."""
    pocketsphinx = pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    from speechtune.decoding.lm.sphinx import read_sphinx

    model = train_ngram(text(15), 3).model
    write_arpa(model, tmp_path / "m.arpa")
    config = pocketsphinx.Config(lm=None, loglevel="FATAL")
    theirs = pocketsphinx.NGramModel(config, pocketsphinx.LogMath(), str(tmp_path / "m.arpa"))
    theirs.write(str(tmp_path / "m.lm.bin"), 2)
    found = read_sphinx(tmp_path / "m.lm.bin")
    assert found.words == model.words
    for order in (2, 3):
        for row in found.ngrams(order)[:: 7 * order]:
            words = [found.words[one] for one in row]
            # Its queries are rounded to whole logarithms of base 1.0001 and its values quantised.
            expected = theirs.prob(words[::-1]) * math.log(1.0001)
            assert found._score(tuple(row[:-1].tolist()), int(row[-1]))[0] == pytest.approx(expected, abs=0.01)
    for sentence in text(16, 20):
        ours, original = sentence_log_prob(found, sentence), sentence_log_prob(model, sentence)
        assert ours == pytest.approx(original, abs=0.05 * (len(sentence) + 1))
    (tmp_path / "cut.bin").write_bytes((tmp_path / "m.lm.bin").read_bytes()[:-400])
    with pytest.raises(InputError, match="is damaged"):
        read_sphinx(tmp_path / "cut.bin")
    with pytest.raises(InputError, match="not a Sphinx binary"):
        read_sphinx(tmp_path / "m.arpa")
