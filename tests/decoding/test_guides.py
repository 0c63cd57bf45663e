"""Fusion and boosting inside the search, against scores worked out outside it."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.boosting import TermBoost, TermTree, build_tree, term_variants
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.lm.arpa import write_arpa
from speechtune.decoding.lm.fusion import TokenFusion, Vocabulary, WordFusion
from speechtune.decoding.lm.model import NgramModel, sentence_log_prob
from speechtune.decoding.lm.rescoring import Features, features_of, ngram_scorer, rescore
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.lm.training import train_ngram
from speechtune.decoding.searching import Searcher
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import load_family
from speechtune.models.whisper import WhisperFamily
from speechtune.scoring.lm_tuning import Setting, tune

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    loaded = load_family(tiny_model)
    assert isinstance(loaded, WhisperFamily)
    loaded.model.eval()
    return loaded


@pytest.fixture
def model() -> NgramModel:
    return train_ngram([line.split() for line in ("the thing sings", "the king", "in the ring", "a thing")], 2).model


def added(processor: Any, tokens: list[int], size: int, begin: list[int]) -> float:
    """What a processor adds to a whole text, token by token."""
    total = 0.0
    for place, token in enumerate(tokens):
        ids = torch.tensor([[*begin, *tokens[:place]]])
        total += float(processor(ids, torch.zeros(1, size))[0, token])
    return total


@pytest.mark.parametrize("text", ["the thing sings", "The king, in the ring.", "zebra's well-known ring", "", "a"])
def test_word_fusion_adds_up_to_the_sentence_score(family: WhisperFamily, model: NgramModel, text: str) -> None:
    size = int(family.config.vocab_size)
    vocabulary = Vocabulary.of(family.tokenizer, size, family.eot)
    fusion = WordFusion(vocabulary, model, spoken_words, 0.4, 0.7, len(family.prompt))
    tokens = family.tokens(text)[0][len(family.prompt) :]
    words = spoken_words(text)
    expected = 0.4 * sentence_log_prob(model, words) + 0.7 * len(words)
    assert added(fusion, tokens, size, family.prompt) == pytest.approx(expected, abs=1e-4)


def test_a_hyphen_does_not_put_off_the_charge(family: WhisperFamily, model: NgramModel) -> None:
    vocabulary = Vocabulary.of(family.tokenizer, int(family.config.vocab_size), family.eot)
    fusion = WordFusion(vocabulary, model, spoken_words, 1.0, 0.0, 0)
    tokens = family.tokens("zing-the")[0][len(family.prompt) : -1]
    hyphen = family.tokenizer.encode("-", add_special_tokens=False)[0]
    place = tokens.index(hyphen)
    scores = fusion(torch.tensor([tokens[:place]]), torch.zeros(1, int(family.config.vocab_size)))
    assert float(scores[0, hyphen]) == pytest.approx(model.score(model.begin(), "zing")[0])


def test_token_fusion_adds_up_to_the_sentence_score(family: WhisperFamily) -> None:
    texts = ("the thing", "sing the king", "in the inn", "a ring")
    ids = [[str(one) for one in family.tokens(text)[0][len(family.prompt) : -1]] for text in texts]
    model = train_ngram(ids, 3).model
    size = int(family.config.vocab_size)
    fusion = TokenFusion(family.eot, model, 0.5, 0.1, len(family.prompt), width=size)
    for text in ("the king", "ring in"):
        tokens = family.tokens(text)[0][len(family.prompt) :]
        expected = 0.5 * sentence_log_prob(model, [str(one) for one in tokens[:-1]]) + 0.1 * (len(tokens) - 1)
        assert added(fusion, tokens, size, family.prompt) == pytest.approx(expected, abs=1e-4)


def test_fused_search_finds_the_best_of_all_short_texts(family: WhisperFamily, model: NgramModel) -> None:
    """Two tokens and wide beams: the winner is the best by exhaustive search over model plus language model."""
    waveform = np.random.default_rng(4).standard_normal(12_000).astype(np.float32) * 0.1
    allowed = [family.tokenizer.encode(one, add_special_tokens=False)[0] for one in ("t", "a", " ", "s", "i", "n")]
    size = int(family.config.vocab_size)
    banned = [one for one in range(size) if one not in (*allowed, family.eot)]
    config = DecodingConfig.model_validate(
        {"beams": 36, "max_new_tokens": 3, "search": {"suppress_tokens": banned, "length_penalty": 0.0}}
    )
    vocabulary = Vocabulary.of(family.tokenizer, size, family.eot)

    def fusion(begin: int) -> WordFusion:
        return WordFusion(vocabulary, model, spoken_words, 2.0, 1.0, begin)

    features = family.front_end([waveform], 150)
    best, winner = -math.inf, []
    for length in (1, 2, 3):
        for tokens in itertools.product(allowed, repeat=length):
            # What reaches the limit of three has no end.
            said = [*tokens, family.eot][:3]
            chain = [*family.prompt, *said]
            with torch.no_grad():
                logits = family.model(input_features=features, decoder_input_ids=torch.tensor([chain[:-1]])).logits[0]
            scores = logits.log_softmax(-1)
            own = sum(float(scores[len(family.prompt) - 1 + n, token]) for n, token in enumerate(said))
            if tokens[0] in (family.generation_config.begin_suppress_tokens or []):
                continue
            total = own + added(fusion(len(family.prompt)), said, size, family.prompt)
            if total > best:
                best, winner = total, list(tokens)
    found = family.generate([waveform], 150, 3, 36, search=config.search, guides=[fusion])[0]
    assert found.tokens == winner
    plain = family.generate([waveform], 150, 3, 36, search=config.search)[0]
    assert plain.tokens != winner


def total_bonus(tree: TermTree, tokens: list[int]) -> float:
    node, total = 0, 0.0
    for token in tokens:
        node, change = tree.step(node, token)
        total += change
    return total + tree.fail(node)


def test_only_finished_terms_keep_their_bonus() -> None:
    tree = TermTree({(1, 2, 3): 1.0, (2, 4): 0.5, (7,): 2.0})
    assert total_bonus(tree, [1, 2, 3]) == pytest.approx(3.0)
    assert total_bonus(tree, [5, 1, 2, 3, 1, 2, 3, 9]) == pytest.approx(6.0)
    assert total_bonus(tree, [1, 2, 9]) == total_bonus(tree, [1, 2]) == pytest.approx(0.0)
    assert total_bonus(tree, [1, 2, 4]) == pytest.approx(1.0)
    assert total_bonus(tree, [1, 1, 2, 3]) == pytest.approx(3.0)
    assert total_bonus(tree, [7, 7, 2, 4]) == pytest.approx(5.0)
    assert total_bonus(tree, [8, 9]) == 0.0


def test_random_texts_are_paid_for_their_terms_and_nothing_else() -> None:
    """Terms that share no token cannot overlap, so the law is: bonus x length x occurrences."""
    rng = np.random.default_rng(0)
    tree = TermTree({(1, 2): 1.5, (3, 4, 5): 0.5})
    for _ in range(300):
        tokens = rng.integers(0, 7, 12).tolist()
        joined = ",".join(map(str, ["", *tokens, ""]))
        twos = sum(tokens[at : at + 2] == [1, 2] for at in range(11))
        threes = sum(tokens[at : at + 3] == [3, 4, 5] for at in range(10))
        assert total_bonus(tree, tokens) == pytest.approx(3.0 * twos + 1.5 * threes), joined


def test_a_longer_term_that_fails_keeps_the_shorter_one_it_began_with() -> None:
    tree = TermTree({(1, 2): 1.0, (1, 2, 3, 4): 1.0})
    assert total_bonus(tree, [1, 2, 3, 4]) == pytest.approx(4.0)
    assert total_bonus(tree, [1, 2, 3, 9]) == pytest.approx(2.0)
    assert total_bonus(tree, [1, 2, 3]) == pytest.approx(2.0)


def test_the_processor_gives_every_text_what_the_tree_says(family: WhisperFamily) -> None:
    tree = build_tree(family.tokenizer, {"king": 1.0, "the inn": 2.0})
    size = int(family.config.vocab_size)
    boost = TermBoost(tree, len(family.prompt), family.eot)
    for text in ("the king", "the inn king", "kin", "nothing", "The Inn"):
        tokens = family.tokens(text)[0][len(family.prompt) :]
        assert added(boost, tokens, size, family.prompt) == pytest.approx(total_bonus(tree, tokens[:-1]), abs=1e-4)
    length = len(family.tokenizer.encode(" king", add_special_tokens=False))
    assert total_bonus(tree, family.tokens("the king")[0][2:-1]) == pytest.approx(length)
    assert {" King", "King", " king", "king"} <= set(term_variants("king"))


@pytest.mark.parametrize("beams", [1, 4])
def test_a_boosted_term_is_heard_and_a_zero_boost_changes_nothing(
    family: WhisperFamily, tiny_corpus: Path, beams: int
) -> None:
    corpus = Corpus.load(tiny_corpus).split("dev")

    def texts(**blocks: Any) -> list[str]:
        config = DecodingConfig.model_validate({"beams": beams, "max_new_tokens": 8, **blocks})
        return [one.text for one in transcribe_corpus(family, corpus, config)]

    plain = texts()
    assert texts(boost={"terms": ["ring"], "weight": 0.0}) == plain
    assert not any("ring" in one.lower() for one in plain)
    assert all("ring" in one.lower() for one in texts(boost={"terms": ["ring"], "weight": 30.0}))


def test_rescoring_orders_by_the_total_and_says_so(model: NgramModel) -> None:
    rows = [
        {"text": "zing", "sum_log_prob": -1.0, "log_prob": -0.5, "tokens": 2},
        {"text": "the king", "sum_log_prob": -1.5, "log_prob": -0.5, "tokens": 3},
    ]
    said = Transcript(utterance_id="u", text="zing", nbest=rows)
    features = features_of(said, ngram_scorer(model, spoken_words), spoken_words)
    assert features.language[1] == pytest.approx(sentence_log_prob(model, ["the", "king"]))
    assert features.words.tolist() == [1, 2]
    same = rescore(said, features, 0.0, 0.0, 0.0)
    assert (same.text, same.flags) == ("zing", [])
    changed = rescore(said, features, 0.0, 1.0, 0.0)
    assert (changed.text, changed.flags) == ("the king", ["rescored"])
    assert changed.nbest[0]["total"] == pytest.approx(-1.5 + 2.0)
    with pytest.raises(InputError, match="no N-best list"):
        features_of(Transcript(utterance_id="u", text="x"), ngram_scorer(model, spoken_words), spoken_words)


def test_tuning_judges_every_speaker_with_the_others_weights() -> None:
    """Speaker a wants the language model, b must not have it: crossed over, both get the wrong one."""
    yes = Features(np.array([0.0, -1.0]), np.array([-5.0, 0.0]), np.ones(2), np.ones(2))
    errors = {"a": np.array([2, 0]), "b": np.array([0, 2])}
    speakers = ["a"] * 4 + ["b"] * 4
    found = tune(
        [yes] * 8,
        [errors[one] for one in speakers],
        [4] * 8,
        speakers,
        resamples=20,
        grid=[Setting(0.0, 0.0, 0.0), Setting(1.0, 0.0, 0.0)],
    )
    assert [one.alpha for one in found.folds] in ([0.0, 1.0], [1.0, 0.0])
    assert found.wer_crossed == pytest.approx(2 / 4)
    assert found.wer_before == found.wer_tuned == pytest.approx(1 / 4)
    assert found.wer_oracle == 0.0
    alike = tune([yes] * 8, [errors["a"]] * 8, [4] * 8, speakers, resamples=20)
    assert alike.wer_crossed == 0.0


def test_a_rescoring_configuration_without_hypotheses_is_refused(family: WhisperFamily) -> None:
    with pytest.raises(InputError, match="n_best is 1"):
        Searcher(family, DecodingConfig.model_validate({"lm": {"model": "x.arpa"}}))


def test_a_family_without_search_is_told_what_does_not_work() -> None:
    class Other:
        name = "ctc"

        def generate(self, waveforms: Any, n_frames: int, max_new_tokens: int, beams: int = 1) -> list[Any]:
            return []

    other: Any = Other()
    Searcher(other, DecodingConfig())
    with pytest.raises(InputError, match="do not work with a ctc model"):
        Searcher(other, DecodingConfig.model_validate({"beams": 2, "search": {"n_best": 2}}))


def test_causal_scores_equal_a_plain_sum(tmp_path: Path, family: WhisperFamily) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from speechtune.decoding.lm.causal import CausalScorer

    torch.manual_seed(0)
    end = family.eot
    size = int(family.config.vocab_size)
    gpt = GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=end, eos_token_id=end)
    ).eval()
    gpt.save_pretrained(tmp_path / "gpt")
    family.tokenizer.save_pretrained(tmp_path / "gpt")
    scorer = CausalScorer(tmp_path / "gpt")
    texts = ["the king", "a", "sing the thing now"]
    for text, one in zip(texts, scorer(texts), strict=True):
        ids = torch.tensor(
            [[scorer.begin, *scorer.tokenizer.encode(text, add_special_tokens=False), scorer.tokenizer.eos_token_id]]
        )
        with torch.no_grad():
            loss = gpt(input_ids=ids, labels=ids).loss
        assert one == pytest.approx(-float(loss) * (ids.shape[1] - 1), abs=1e-3)


def test_tune_writes_settings_that_transcribe_takes(
    speechtune: Command, tiny_model: Path, tiny_corpus: Path, model: NgramModel, tmp_path: Path
) -> None:
    write_arpa(model, tmp_path / "m.arpa")
    out = tmp_path / "tuned.yaml"
    done = speechtune(
        "lm", "tune", tiny_model, tiny_corpus, "--lm", tmp_path / "m.arpa", "--beams", "3", "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["wer_oracle"] <= json.loads(done.stdout)["wer_before"]
    block = yaml.safe_load(out.read_text())["decoding"]
    assert block["search"]["n_best"] == block["beams"] == 3
    said = speechtune(
        "transcribe",
        tiny_model,
        tiny_corpus,
        "decoding.max_new_tokens=6",
        "--split",
        "dev",
        "--settings",
        out,
        "--json",
    )
    assert said.returncode == 0, said.stderr
    rows = json.loads(said.stdout)["transcripts"]
    assert all("lm_log_prob" in row["nbest"][0] for row in rows)
    wrong = speechtune("transcribe", tiny_model, tiny_corpus, "decoding.serch.n_best=8")
    assert wrong.returncode == 2
    assert "unknown key" in wrong.stderr


def test_a_glossary_stands_in_the_prompt_behind_the_hotwords(family: WhisperFamily) -> None:
    from speechtune.models.search_config import SearchConfig
    from speechtune.models.whisper_search import prompt_tokens

    search = SearchConfig(hotwords=["Ada"], glossary={"Bo": "a dog", "EKG": ""}, prompt=" Now then. ")
    assert search.said_before() == ["Ada", "Bo (a dog), EKG.", "Now then."]
    written = SearchConfig(prompt="Ada Bo (a dog), EKG. Now then.")
    assert prompt_tokens(family, search) == prompt_tokens(family, written)
    assert prompt_tokens(family, search)[1] > 0
    assert not search.is_plain()
    assert SearchConfig().said_before() == []
