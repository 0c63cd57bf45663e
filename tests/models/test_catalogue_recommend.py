"""Recommendations: laws that hold for every answer, and the answers whose reasons are known."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.catalogue.entries import CatalogueModel, catalogue
from speechtune.models.catalogue.recommend import (
    PURPOSES,
    Needs,
    Recommendation,
    memory_needed_gib,
    recommend,
    with_corpus,
)

KNOWN = ("whisper", "qwen3_asr", "wav2vec2", "hubert", "wavlm", "wav2vec2-bert", "parakeet_ctc", "moonshine")


def loadable(model: CatalogueModel) -> bool:
    return catalogue().runs_with(model) == "transformers" and (model.model_type or model.family) in KNOWN


def exports(model: CatalogueModel) -> tuple[str, ...]:
    return ("ggml",) if (model.model_type or model.family) == "whisper" else ()


def ask(needs: Needs) -> Recommendation | None:
    """The recommendation; ``None`` where nothing fits."""
    try:
        return recommend(needs, loadable, exports)
    except InputError:
        return None


LANGUAGES = ((), ("en",), ("he",), ("hi", "en"), ("xyz",))
CASES = [
    Needs(purpose=purpose, languages=languages, commercial=commercial, hours=hours)
    for purpose, languages, commercial, hours in itertools.product(
        PURPOSES, LANGUAGES, (False, True), (None, 0.5, 40.0)
    )
]


@pytest.mark.parametrize("where", ["gpu_gb", "ram_gb"])
def test_less_memory_never_recommends_a_larger_model(where: str) -> None:
    """Of the first choice: it is the recommendation; once nothing fits, nothing fits with less."""
    compared = 0
    for case in CASES:
        size = float("inf")
        for memory in (80, 24, 16, 12, 8, 6, 4, 3, 2, 1.5, 1):
            found = ask(replace(case, **{where: float(memory)}))
            now = found.candidates[0].parameters_m if found else 0.0
            assert now <= size, (case, memory)
            compared += now < size < float("inf")
            size = now
    assert compared > 50


def test_what_is_recommended_fits_the_memory() -> None:
    for case, memory in itertools.product(CASES, (24.0, 8.0, 2.0)):
        found = ask(replace(case, gpu_gb=memory))
        for one in found.candidates if found else []:
            assert memory_needed_gib(catalogue().get(one.name)) * 2**30 <= memory * 1e9
            assert one.ways and all(way.gib * 2**30 <= memory * 1e9 for way in one.ways)


def test_every_answer_ends_with_a_baseline_of_models_that_can_be_fetched() -> None:
    from speechtune.models.packages import HUB_ALIASES, PACKAGED

    for case in CASES:
        found = ask(replace(case, corpus="my corpora/kids one"))
        if found is None:
            continue
        words = shlex.split(found.commands[-1])
        assert words[:3] == ["speechtune", "baseline", "my corpora/kids one"]
        models = words[words.index("--models") + 1].split(",")
        assert 2 <= len(models) <= 5 and len(set(models)) == len(models)
        fetched = {shlex.split(one)[-1] for one in found.commands[:-1]}
        for name in (*models, *(one.name for one in found.candidates)):
            assert name in PACKAGED or name in HUB_ALIASES
            assert name in fetched
        assert all(catalogue().get(name).recognises for name in models)
        assert words[words.index("--out") + 1] == "searches/kids one"


def test_every_answer_says_why_it_is_not_sure_and_every_reason_has_a_source() -> None:
    for case in CASES:
        found = ask(case)
        if found is None:
            continue
        assert found.sure in ("low", "medium") and found.why_not_surer
        assert len(found.why_not_surer) == 1 or found.sure == "low"
        for reason in [*(one for each in found.candidates for one in each.reasons), *found.remarks]:
            assert reason.source in found.sources or "notebook" in reason.source, reason
        assert all(one.reasons for one in found.candidates)


def test_licence_language_and_export_are_obeyed() -> None:
    for case in CASES:
        found = ask(case)
        for one in found.candidates if found else []:
            model = catalogue().get(one.name)
            assert model.commercial or not case.commercial
            assert all(catalogue().knows(model, language) != "no" for language in case.languages)
            assert case.purpose != "phone" or (exports(model) and one.parameters_m <= 250)


@pytest.mark.parametrize(
    ("needs", "first"),
    [
        (Needs(children=True, languages=("en",), gpu_gb=24), "qwen3-asr-1.7b"),
        (Needs(children=True, languages=("en",), gpu_gb=3.2), "qwen3-asr-0.6b"),
        (Needs(languages=("he",), gpu_gb=24, hours=30), "whisper-large-v3"),  # Qwen3-ASR does not know Hebrew
        (Needs(purpose="phone", languages=("en",)), "whisper-small.en"),
        (Needs(purpose="phone", languages=("pa",)), "whisper-small"),
        (Needs(languages=("zh", "en"), code_switching=True, gpu_gb=24), "breeze-asr-25"),
        (Needs(languages=("hi", "en"), code_switching=True, gpu_gb=24), "whisper-large-v3"),
        (Needs(languages=("xyz",), gpu_gb=24), "mms-1b-all"),
        (Needs(languages=("xyz",), gpu_gb=24, commercial=True), "w2v-bert-2.0"),
        (Needs(languages=("he",), ram_gb=16), "whisper-small"),
    ],
)
def test_answers_whose_reasons_are_known(needs: Needs, first: str) -> None:
    found = ask(needs)
    assert found is not None and found.candidates[0].name == first


def test_nothing_fits_is_one_sentence_that_counts_why() -> None:
    with pytest.raises(InputError, match=r"no model of the catalogue fits \(.*needs more memory.*\): allow more"):
        recommend(Needs(gpu_gb=0.3), loadable, exports)
    with pytest.raises(InputError, match="there is no purpose 'fun': use one of general, "):
        recommend(Needs(purpose="fun"), loadable, exports)


def test_a_corpus_says_hours_languages_speakers_and_children() -> None:
    rows = [
        Utterance(
            utterance_id=str(place), file_name=f"{place}.wav", text="a", duration_s=900, speaker_id=f"s{place % 3}",
            language="English" if place else "en-GB", age="7" if place < 5 else "30",
            split="test" if place > 7 else "train",
        )
        for place in range(9)
    ]  # fmt: skip
    corpus = Corpus(root=Path("corpora/kids"), utterances=rows)
    found = with_corpus(Needs(gpu_gb=8), corpus)
    assert found == Needs(hours=2.0, languages=("en",), speakers=3, children=True, gpu_gb=8, corpus="corpora/kids")
    said = with_corpus(Needs(hours=5.0, languages=("de",), speakers=1), corpus)
    assert (said.hours, said.languages, said.speakers) == (5.0, ("de",), 1)
