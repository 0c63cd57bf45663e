"""Logit-level ensembles: laws (identical members, weights of nearly one) and an average computed by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.searching import Searcher
from speechtune.decoding.sources import open_model
from speechtune.decoding.together import ensemble as ensemble_module
from speechtune.decoding.together.ensemble import Ensemble
from speechtune.decoding.together.opening import names_several, parse_members
from speechtune.models.family import load_family
from speechtune.models.search_config import SearchConfig
from speechtune.models.whisper import WhisperFamily

PLAIN, LISTS = SearchConfig(), SearchConfig(n_best=3)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with other weights."""
    directory = tmp_path_factory.mktemp("other")
    family = load_family(tiny_model)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in family.model.parameters():
            weight += 0.3 * weight.std().nan_to_num() * torch.randn_like(weight)
    family.save(directory)
    return directory


@pytest.fixture
def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(length).astype(np.float32) * 0.1 for length in (16_000, 9_000, 20_000)]


def load(path: Path) -> WhisperFamily:
    loaded = load_family(path)
    assert isinstance(loaded, WhisperFamily)
    loaded.model.eval()
    return loaded


@pytest.mark.parametrize("average", ["probabilities", "log-probabilities"])
@pytest.mark.parametrize(("beams", "search"), [(1, PLAIN), (4, PLAIN), (4, LISTS)])
def test_an_ensemble_of_identical_models_is_the_model(
    tiny_model: Path, waveforms: list[np.ndarray], beams: int, search: SearchConfig, average: str
) -> None:
    alone = load(tiny_model).generate(waveforms, 150, 10, beams, search=search)
    joint = Ensemble([load(tiny_model), load(tiny_model), load(tiny_model)], [1, 2, 3], average)  # type: ignore[arg-type]
    together = joint.generate(waveforms, 150, 10, beams, search=search)
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.log_prob for one in together] == pytest.approx([one.log_prob for one in alone], abs=1e-4)
    assert [[two.tokens for two in one.nbest] for one in together] == [
        [two.tokens for two in one.nbest] for one in alone
    ]


@pytest.mark.parametrize("beams", [1, 4])
def test_all_weight_on_one_member_gives_that_member(
    tiny_model: Path, other_model: Path, waveforms: list[np.ndarray], beams: int
) -> None:
    first = load(tiny_model).generate(waveforms, 150, 10, beams)
    second = load(other_model).generate(waveforms, 150, 10, beams)
    assert [one.tokens for one in first] != [one.tokens for one in second]
    for weights, expected in (([1.0, 1e-9], first), ([1e-9, 1.0], second)):
        joint = Ensemble([load(tiny_model), load(other_model)], weights, "log-probabilities")
        assert [one.tokens for one in joint.generate(waveforms, 150, 10, beams)] == [one.tokens for one in expected]


def test_beams_are_reordered_in_every_member_s_cache(tiny_model: Path, other_model: Path) -> None:
    rng = np.random.default_rng(5)
    clips = [rng.standard_normal(16_000 + 2_000 * number).astype(np.float32) * 0.2 for number in range(6)]
    search = SearchConfig(n_best=6, length_penalty=0.5, no_repeat_ngram=2)
    alone = load(other_model).generate(clips, 300, 20, 6, search=search)
    joint = Ensemble([load(tiny_model), load(other_model)], [1e-9, 1.0], "log-probabilities")
    moved = []
    real = ensemble_module._JointCache.reorder_cache

    def reorder(self: Any, beam_idx: torch.Tensor) -> None:
        moved.append(not torch.equal(beam_idx.cpu(), torch.arange(len(beam_idx))))
        real(self, beam_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble_module._JointCache, "reorder_cache", reorder)
        together = joint.generate(clips, 300, 20, 6, search=search)
    assert sum(moved) > 5, "the beams keep their places, so the test shows nothing"
    assert [[two.tokens for two in one.nbest] for one in together] == [
        [two.tokens for two in one.nbest] for one in alone
    ]


def next_token(family: WhisperFamily, waveform: np.ndarray, tokens: list[int]) -> torch.Tensor:
    """Probabilities of the next token, without cache or batch."""
    with torch.no_grad():
        logits = family.model(
            input_features=family.front_end([waveform], 150), decoder_input_ids=torch.tensor([tokens])
        ).logits[0, -1]
    return logits.double().softmax(-1)


@pytest.mark.parametrize("average", ["probabilities", "log-probabilities"])
def test_every_greedy_step_takes_the_best_of_the_averaged_probabilities(
    tiny_model: Path, other_model: Path, waveforms: list[np.ndarray], average: str
) -> None:
    members, weights = [load(tiny_model), load(other_model)], [0.3, 0.7]
    joint = Ensemble([load(tiny_model), load(other_model)], weights, average)  # type: ignore[arg-type]
    found = joint.generate(waveforms, 150, 8)
    differs = 0
    for waveform, one in zip(waveforms, found, strict=True):
        for place, token in enumerate(one.tokens):
            given = [*joint.prompt, *one.tokens[:place]]
            parts = [next_token(member, waveform, given) for member in members]
            if average == "probabilities":
                scores = sum(weight * part for weight, part in zip(weights, parts, strict=True))
            else:
                scores = torch.exp(sum(weight * part.log() for weight, part in zip(weights, parts, strict=True)))
            scores[joint.first_timestamp :] = 0
            scores[joint.generation_config.suppress_tokens] = 0
            if place == 0:
                scores[joint.generation_config.begin_suppress_tokens] = 0
            assert int(scores.argmax()) == token
            differs += int(parts[0].argmax()) != int(parts[1].argmax())
    assert differs, "the members agree everywhere, so the test shows nothing"


def test_teacher_forced_scores_of_the_ensemble_are_those_of_its_average(
    tiny_model: Path, waveforms: list[np.ndarray]
) -> None:
    texts = [["the king"], ["in the inn", "go on"], [""]]
    alone = label_likelihoods(load(tiny_model), waveforms, texts, 150)
    joint = label_likelihoods(Ensemble([load(tiny_model), load(tiny_model)]), waveforms, texts, 150)
    for row, other in zip(alone, joint, strict=True):
        assert [one.total for one in row if one] == pytest.approx([one.total for one in other if one], abs=1e-4)


def test_fallback_and_sampling_work_on_an_ensemble(
    tiny_model: Path, other_model: Path, waveforms: list[np.ndarray]
) -> None:
    config = DecodingConfig.model_validate(
        {"max_new_tokens": 8, "fallback": {"temperatures": [0.5], "log_prob": -0.01, "best_of": 2, "no_speech": None}}
    )
    joint = Ensemble([load(tiny_model), load(other_model)])
    made = Searcher(joint, config).transcripts(["a", "b", "c"], waveforms, 150)
    assert all("fallback-0.5" in one.flags for one in made)


def test_models_that_do_not_fit_are_refused_in_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(tmp_path / "multi", multilingual=True, positions=150, text_positions=64)
    multilingual = load_family(tmp_path / "multi", language="en")
    with pytest.raises(InputError, match="model 2 of the ensemble has another tokenizer or language"):
        Ensemble([load(tiny_model), multilingual])
    make_transformers(tmp_path / "short", multilingual=False, positions=100, text_positions=64)
    with pytest.raises(InputError, match="another audio window"):
        Ensemble([load(tiny_model), load(tmp_path / "short")])
    with pytest.raises(InputError, match="two models or more"):
        Ensemble([load(tiny_model)])
    with pytest.raises(InputError, match="one weight above 0"):
        Ensemble([load(tiny_model), load(tiny_model)], [1.0])
    with pytest.raises(InputError, match="one here is of family ctc"):
        Ensemble([load(tiny_model), SimpleNamespace(name="ctc")])


def test_models_joined_by_plus_are_opened_as_an_ensemble(
    tiny_model: Path, other_model: Path, waveforms: list[np.ndarray]
) -> None:
    opened = open_model(f"{tiny_model}:0.25+{other_model}:0.75", context="full", overrides=["decoding.beams=2"])
    assert isinstance(opened.family, Ensemble)
    assert (opened.decoding.context, opened.decoding.beams) == ("full", 2)
    by_hand = Ensemble([load(tiny_model), load(other_model)], [0.25, 0.75])
    tokens = [[one.tokens for one in joint.generate(waveforms, 150, 8)] for joint in (opened.family, by_hand)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("name", "found"), [("a+b", (["a", "b"], None)), ("runs/a:0.6+b:2", (["runs/a", "b"], [0.6, 2.0]))]
)
def test_names_and_weights_are_read(name: str, found: tuple[list[str], list[float] | None]) -> None:
    assert names_several(name) and parse_members(name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [("a+", "an empty model"), ("a:x+b", "the weight 'x'"), ("a:0.5+b", "1 weights for 2 models")],
)
def test_names_that_cannot_be_read_are_one_sentence(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_members(name)


def test_an_existing_path_with_a_plus_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    assert not names_several(str(tmp_path / "a+b"))
