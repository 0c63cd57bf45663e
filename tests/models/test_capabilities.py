"""Every declared capability is true: what a family declares works on a tiny model, what it does not is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import tiny_ctc
import torch

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.capabilities import Capabilities, can, capabilities_of, declared, require
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import FAMILIES, Example, load_family
from speechtune.models.trainable import Layout

TEXTS = ("abba", "c")


def make_whisper(directory: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(directory, multilingual=False, positions=150, text_positions=64)


def make_ctc(directory: Path) -> None:
    tiny_ctc.make_ctc(directory, "wav2vec2")


def make_qwen(directory: Path) -> None:
    from tiny_qwen3_asr import make_qwen3_asr

    make_qwen3_asr(directory)


def make_tiny(name: str, directory: Path) -> None:
    """The tiny model of a family; unless `MAKERS` has one, ``make_NAME`` of ``tests/tiny_NAME.py``."""
    make = MAKERS.get(name) or getattr(import_module(f"tiny_{name}"), f"make_{name}")
    make(directory)


MAKERS: dict[str, Callable[[Path], None]] = {
    "whisper": make_whisper,
    "ctc": make_ctc,
    "qwen3_asr": make_qwen,
}
"""Tiny models whose makers have another name than `make_tiny` looks for."""

LANGUAGES = {"canary": "en"}
"""Families that must be told one."""

NAMES = sorted(declared())


class Subject:
    """A family, its directory, and two clips."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.family: Any = load_family(
            directory, device="cpu", language=LANGUAGES.get(directory.name.rstrip("0123456789"))
        )
        rng = np.random.default_rng(0)
        self.waves = [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in (16_000, 14_000)]
        self.frames = self.family.context_frames(1.0, self.family.contexts[0])

    def batch(self) -> dict[str, torch.Tensor]:
        examples = [Example(wave, *self.family.tokens(text)) for wave, text in zip(self.waves, TEXTS, strict=True)]
        return self.family.collate(examples, self.frames)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the tiny models lie, made once."""
    made = {}
    for name in NAMES:
        made[name] = tmp_path_factory.mktemp(name)
        make_tiny(name, made[name])
    return made


def decoding(**values: Any) -> Any:
    from speechtune.decoding.config import DecodingConfig

    return DecodingConfig.model_validate({"max_new_tokens": 4, **values})


def transcribed(subject: Subject, config: Any) -> list[Any]:
    from speechtune.decoding.searching import Searcher

    subject.family.model.eval()
    return Searcher(subject.family, config).transcripts(["a", "b"], subject.waves, subject.frames)


def probe_full(subject: Subject, folder: Path) -> None:
    subject.family.model.eval()  # nothing is dropped
    loss = subject.family.model(**subject.batch()).loss
    loss.backward()
    wanted = [one for one in subject.family.model.parameters() if one.requires_grad]
    assert torch.isfinite(loss) and sum(one.grad is not None for one in wanted) > 0.8 * len(wanted)


def probe_lora(subject: Subject, folder: Path) -> None:
    model = choose_trainable(subject.family, ModelConfig(), AdapterConfig(kind="lora", rank=2))
    model.eval()  # nothing is dropped
    model(**subject.batch()).loss.backward()
    trained = [one for name, one in model.named_parameters() if "lora_B" in name]
    assert trained and all(one.grad is not None for one in trained)


def probe_layer_wise(subject: Subject, folder: Path) -> None:
    layout = Layout(subject.family)
    upper = layout.select({"encoder": [0.5, 1.0]}, "model.train")
    assert 0 < len(upper) < len(layout.select("encoder", "model.train"))


def probe_word_times(subject: Subject, folder: Path) -> None:
    from speechtune.decoding.long.timing import WordTimer, can_time

    timer = WordTimer(subject.family, subject.family.contexts[0])
    assert can_time(subject.family)
    assert [one.text for one in timer.times(subject.waves[0], "ab ba")] == ["ab", "ba"]


def probe_time_tokens(subject: Subject, folder: Path) -> None:
    from speechtune.decoding.long.sequential import whisper_decoder

    whisper_decoder(subject.family, decoding())


def probe_search(subject: Subject, folder: Path) -> None:
    assert len(transcribed(subject, decoding(search={"sample": True, "temperature": 2.0}))) == 2


def probe_n_best(subject: Subject, folder: Path) -> None:
    found = transcribed(subject, decoding(beams=3, search={"n_best": 2, "scores": "always"}))
    assert all(1 <= len(one.nbest) <= 2 for one in found) and any(one.nbest for one in found)


def probe_lm_fusion(subject: Subject, folder: Path) -> None:
    arpa = folder / "lm.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=5\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\n-0.7\t</s>\n-0.7\tabba\n-0.7\tc\n\n\\end\\\n"
    )
    assert len(transcribed(subject, decoding(beams=2, lm={"model": str(arpa), "use": "fuse"}))) == 2


def probe_streaming(subject: Subject, folder: Path) -> None:
    from speechtune.decoding.streaming.recogniser import FamilyRecogniser

    recogniser = FamilyRecogniser(subject.family, decoding(streaming={"prompt_words": 0}))
    assert type(recogniser.recognise(subject.waves[0], [], "", True)).__name__ == "Recognised"


def probe_no_speech(subject: Subject, folder: Path) -> None:
    from speechtune.decoding.guards import no_speech_probabilities

    found = no_speech_probabilities(subject.family, subject.waves, subject.frames)
    assert len(found) == 2 and all(0 <= one <= 1 for one in found)


def probe_label_likelihood(subject: Subject, folder: Path) -> None:
    from speechtune.decoding.label_likelihood import label_likelihoods

    found = label_likelihoods(subject.family, subject.waves, [["abba"], ["c", "abba"]], subject.frames)
    assert [len(one) for one in found] == [1, 2] and all(one.total < 0 for own in found for one in own if one)


def probe_distillation(subject: Subject, folder: Path) -> None:
    from speechtune.models.observe import Needs, taps_of, watch

    taps = taps_of(subject.family, "objectives.distil")
    subject.family.model.eval()
    batch = {key: one for key, one in subject.batch().items() if key != "labels"}
    with torch.no_grad(), watch(taps, Needs(logits=True, parts=frozenset(taps.blocks))) as seen:
        subject.family.model(**batch)
    assert seen.logits is not None and taps.blocks
    assert all(len(seen.hidden[part]) == len(blocks) for part, blocks in taps.blocks.items())


def probe_grpo(subject: Subject, folder: Path) -> None:
    from speechtune.models.policy import policy_of

    assert policy_of(subject.family, "objectives.grpo").family is subject.family


def probe_shrinks(subject: Subject, folder: Path) -> None:
    from speechtune.models.shrinking import shrink

    shrink(str(subject.directory), folder / "student", encoder_layers=1, decoder_layers=1)


def probe_exports(subject: Subject, folder: Path) -> None:
    from speechtune.export.exporting import FORMATS
    from speechtune.export.source import open_source

    assert open_source(str(subject.directory)).family.name == subject.family.name
    assert set(subject.family.capabilities.exports) <= set(FORMATS)


PROBES = {name.removeprefix("probe_"): probe for name, probe in globals().items() if name.startswith("probe_")}
REFUSED_BY_ASKING = {"no_speech"}
"""Nobody is refused: the code leaves the measure out where it is not declared."""


def test_every_capability_has_a_probe_and_every_family_a_tiny_model() -> None:
    described = {"title", "loss", "frames_per_second", "audio_in_decoder"}
    assert set(PROBES) == {one.name for one in fields(Capabilities)} - described
    assert set(NAMES) >= {"whisper", "ctc", "qwen3_asr"}


@pytest.mark.parametrize("what", sorted(PROBES))
@pytest.mark.parametrize("name", NAMES)
def test_the_declaration_is_true(name: str, what: str, directories: dict[str, Path], tmp_path: Path) -> None:
    subject = Subject(directories[name])
    if can(subject.family, what):
        PROBES[what](subject, tmp_path)
    elif what not in REFUSED_BY_ASKING:
        with pytest.raises(InputError) as refusal:
            PROBES[what](subject, tmp_path)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_word_times_come_from_where_they_are_declared(name: str, directories: dict[str, Path]) -> None:
    from speechtune.decoding.ctc_alignment import CtcAligner
    from speechtune.decoding.long.timing import WordTimer
    from speechtune.decoding.word_times import WhisperTimer

    family = load_family(directories[name], device="cpu", language=LANGUAGES.get(name))
    source = family.capabilities.word_times
    if source:
        kind = {"cross-attention": WhisperTimer, "CTC alignment": CtcAligner}[source]
        assert isinstance(WordTimer(family, family.contexts[0])._aligner, kind)


@pytest.mark.parametrize("name", NAMES)
def test_frames_per_second_are_the_encoders(name: str, directories: dict[str, Path]) -> None:
    """Three times the audio has three times the positions, to one in ten."""
    subject = Subject(directories[name])
    family = subject.family
    family.model.eval()
    counts: list[int] = []

    def positions(hidden: torch.Tensor) -> int:
        return math.prod(hidden.shape[:-1])  # of one clip, in however many windows

    handle = family.part("encoder").register_forward_hook(
        lambda module, inputs, output: counts.append(positions(getattr(output, "last_hidden_state", output[0])))
    )
    longest_s = min(family.limits.max_audio_s, 3.0)
    for seconds in (longest_s / 3, longest_s):
        wave = np.random.default_rng(0).standard_normal(round(seconds * 16_000)).astype(np.float32)
        batch = family.collate([Example(wave, *family.tokens("abba"))], family.context_frames(seconds, "fit"))
        batch.pop("labels")
        with torch.no_grad():
            family.model(**batch)
    handle.remove()
    per_second = (counts[1] - counts[0]) / (2 * longest_s / 3)
    assert per_second == pytest.approx(family.capabilities.frames_per_second, rel=0.1)


def test_asking_and_requiring() -> None:
    assert capabilities_of("whisper").shrinks and capabilities_of("nothing") is None
    require("whisper", "shrinks", "never")
    for model_type in ("wav2vec2", "nothing"):
        with pytest.raises(InputError, match=r"only these\."):
            require(model_type, "shrinks", "only these.")
    assert not can(object(), "grpo")


def test_model_types_of_a_family_are_those_of_the_registry() -> None:
    types = [model_type for _, types in declared().values() for model_type in types]
    assert len(types) == len(set(types)) and set(types) <= set(FAMILIES)


def test_the_committed_table_is_the_generated_one() -> None:
    from speechtune.models.capabilities_table import ROWS, families_table, with_table

    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    assert with_table(page) == page, "run: python -m speechtune.models.capabilities_table docs/families.md"
    assert {what for what, _ in ROWS} - {"contexts"} == set(PROBES)
    table = families_table()
    assert all(kind.capabilities.title in table for kind, _ in declared().values())
    with pytest.raises(InputError, match="needs one line"):
        with_table("no marks")
