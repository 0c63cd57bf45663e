"""N-best lists, sampling, prompts, the fallback ladder, and that the defaults change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.searching import Searcher, compression_ratio
from speechtune.models.family import Hypothesis, load_family
from speechtune.models.search_config import SearchConfig
from speechtune.models.whisper import WhisperFamily


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    loaded = load_family(tiny_model)
    assert isinstance(loaded, WhisperFamily)
    loaded.model.eval()
    return loaded


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(length).astype(np.float32) * 0.1 for length in (16_000, 9_000, 20_000)]


def token_log_probs(
    family: WhisperFamily, waveform: np.ndarray, n_frames: int, given: list[int], tokens: list[int], ban: bool = True
) -> list[float]:
    """An independent computation: one forward pass for every token, no cache, no batch."""
    features = family.front_end([waveform], n_frames)
    banned = [*family.generation_config.suppress_tokens, *range(family.first_timestamp, family.config.vocab_size)]
    found = []
    for place in range(len(tokens)):
        with torch.no_grad():
            logits = family.model(
                input_features=features, decoder_input_ids=torch.tensor([[*given, *tokens[:place]]])
            ).logits[0, -1]
        if ban:
            logits[banned] = -torch.inf
        if ban and place == 0:
            logits[family.generation_config.begin_suppress_tokens] = -torch.inf
        found.append(float(logits.log_softmax(-1)[tokens[place]]))
    return found


@pytest.mark.parametrize("prompt", [None, "the king"])
def test_the_scores_of_every_hypothesis_equal_a_teacher_forced_computation(
    family: WhisperFamily, waveforms: list[np.ndarray], prompt: str | None
) -> None:
    search = SearchConfig(n_best=3, prompt=prompt)
    found = family.generate(waveforms, 150, 8, 4, search=search)
    previous = family.tokenizer.encode(" the king", add_special_tokens=False) if prompt else []
    begin = [family.tokenizer.convert_tokens_to_ids("<|startofprev|>")] if prompt else []
    for waveform, best in zip(waveforms, found, strict=True):
        assert len(best.nbest) == 3
        assert best.tokens == best.nbest[0].tokens
        assert len({tuple(one.tokens) for one in best.nbest}) == 3
        ranks = []
        for one in best.nbest:
            said = one.tokens if one.truncated else [*one.tokens, family.eot]
            expected = token_log_probs(family, waveform, 150, [*begin, *previous, *family.prompt], said)
            assert one.sum_log_prob == pytest.approx(sum(expected), abs=1e-3)
            assert one.log_prob == pytest.approx(sum(expected) / len(said), abs=1e-4)
            # Transformers ranks by the mean over all tokens, forbidden ones included.
            free = token_log_probs(family, waveform, 150, [*begin, *previous, *family.prompt], said, ban=False)
            ranks.append(sum(free) / len(free))
        assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("beams", [1, 4])
def test_search_at_full_context_equals_transformers_whisper_generate(
    family: WhisperFamily, waveforms: list[np.ndarray], tiny_model: Path, beams: int
) -> None:
    """The independent answer is Transformers' own Whisper class, through the plain seq2seq generate."""
    from transformers import GenerationMixin, WhisperForConditionalGeneration

    reference = WhisperForConditionalGeneration.from_pretrained(tiny_model, dtype=torch.float32).eval()
    n_frames = family.context_frames(1.0, "full")
    banned = sorted(
        {*reference.generation_config.suppress_tokens, *range(family.first_timestamp, family.config.vocab_size)}
    )
    theirs: Any = GenerationMixin.generate(
        reference,
        input_features=family.front_end(waveforms, n_frames),
        decoder_input_ids=torch.tensor([family.prompt] * 3),
        max_new_tokens=10,
        num_beams=beams,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        suppress_tokens=banned,
        do_sample=False,
    )
    search = SearchConfig(repetition_penalty=1.3, no_repeat_ngram=2)
    ours = family.generate(waveforms, n_frames, 10, beams, search=search)
    plain = family.generate(waveforms, n_frames, 10, beams)
    for row, one in zip(theirs[:, len(family.prompt) :].tolist(), ours, strict=True):
        end = row.index(family.eot) if family.eot in row else len(row)
        assert one.tokens == row[:end]
    assert [one.tokens for one in ours] != [one.tokens for one in plain]


def test_asking_for_scores_only_changes_no_text(family: WhisperFamily, waveforms: list[np.ndarray]) -> None:
    for beams in (1, 4):
        plain = family.generate(waveforms, 150, 8, beams)
        scored = family.generate(waveforms, 150, 8, beams, search=SearchConfig(scores="always"))
        assert [one.tokens for one in plain] == [one.tokens for one in scored]
        for a, b in zip(plain, scored, strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)


def test_sampling_is_seeded_and_cold_sampling_is_greedy(family: WhisperFamily, waveforms: list[np.ndarray]) -> None:
    def texts(**values: Any) -> list[list[int]]:
        return [one.tokens for one in family.generate(waveforms, 150, 8, 1, search=SearchConfig(sample=True, **values))]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert texts(seed=3) == texts(seed=3) != texts(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    greedy = [one.tokens for one in family.generate(waveforms, 150, 8)]
    assert texts(temperature=1e-4) == greedy
    assert texts(top_k=1, temperature=5.0) == greedy


def test_a_prefix_begins_the_text_and_suppressed_texts_never_occur(
    family: WhisperFamily, waveforms: list[np.ndarray]
) -> None:
    for one in family.generate(waveforms, 150, 8, 1, search=SearchConfig(prefix="the king")):
        assert one.text.startswith("the king")
        assert one.tokens[: len(family.tokens("the king")[0]) - 3] == family.tokens("the king")[0][2:-1]
    plain = family.generate(waveforms, 150, 8)
    worst = plain[0].tokens[0]
    changed = family.generate(waveforms, 150, 8, search=SearchConfig(suppress_tokens=[worst]))
    assert all(worst not in one.tokens for one in changed)
    with pytest.raises(InputError, match="forbids the end"):
        family.generate(waveforms, 150, 8, search=SearchConfig(suppress_tokens=[family.eot]))
    with pytest.raises(InputError, match=r"n_best is 5 and decoding\.beams 2"):
        family.generate(waveforms, 150, 8, 2, search=SearchConfig(n_best=5))


def test_sampling_options_without_sampling_are_refused() -> None:
    with pytest.raises(ValueError, match="top_p acts on sampling only"):
        SearchConfig(top_p=0.9)


class Scripted:
    """A family whose answers are written down: by clip value and by whether it samples."""

    name = "scripted"

    def __init__(self) -> None:
        self.calls: list[tuple[list[float], float | None]] = []

    def generate(
        self,
        waveforms: list[np.ndarray],
        n_frames: int,
        max_new_tokens: int,
        beams: int = 1,
        *,
        search: SearchConfig | None = None,
        guides: Any = (),
    ) -> list[Hypothesis]:
        assert search is not None
        heat = search.temperature if search.sample else None
        clips = [float(one[0]) for one in waveforms]
        self.calls.append((clips, heat))
        return [self._answer(clip, heat) for clip in clips]

    def _answer(self, clip: float, heat: float | None) -> Hypothesis:
        good = Hypothesis("fine", [1], -0.2, False, None, -0.4, 0.1)
        bad = Hypothesis("la " * 60, [1], -0.3, False, None, -0.6, 0.1)
        guess = Hypothesis("hm", [1], -1.5, False, None, -3.0, 0.1)
        silent = Hypothesis("thanks", [1], -1.5, False, None, -3.0, 0.9)
        return {
            0.0: good,
            1.0: bad if heat is None or heat < 0.4 else good,
            2.0: guess,
            3.0: silent,
        }[clip]


def test_only_failing_clips_are_decoded_again_and_flags_say_so() -> None:
    config = DecodingConfig.model_validate({"fallback": {"temperatures": [0.2, 0.4, 0.6]}})
    family: Any = Scripted()
    clips = [np.full(1, value) for value in (0.0, 1.0, 2.0, 3.0)]
    found = Searcher(family, config).transcripts(list("abcd"), clips, 10)
    assert family.calls == [([0, 1, 2, 3], None), ([1, 2], 0.2), ([1, 2], 0.4), ([2], 0.6)]
    assert [one.text for one in found] == ["fine", "fine", "hm", ""]
    assert [one.flags for one in found] == [[], ["fallback-0.4"], ["fallback-0.6", "fallback-failed"], ["no-speech"]]


def test_the_compression_ratio_is_openai_whispers() -> None:
    import zlib

    text = "so so so so so so so so so so so so so so so so"
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode()))
    assert compression_ratio("") == 0.0


def test_nbest_lists_reach_the_transcripts(family: WhisperFamily, tiny_corpus: Path) -> None:
    corpus = Corpus.load(tiny_corpus).split("dev")
    config = DecodingConfig.model_validate({"beams": 3, "max_new_tokens": 6, "search": {"n_best": 3}})
    for one in transcribe_corpus(family, corpus, config):
        assert len(one.nbest) == 3
        assert one.nbest[0]["text"] == one.text
        assert one.nbest[0]["sum_log_prob"] == pytest.approx(
            one.nbest[0]["log_prob"] * one.nbest[0]["tokens"], abs=2e-3
        )
