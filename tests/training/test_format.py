"""Labels in Whisper's training format: read back independently, learnt as Transformers would, replayable."""

from __future__ import annotations

import itertools
import json
import signal
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_whisper
import torch
from safetensors.numpy import load_file

from speechtune.audio.io import load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, load_family
from speechtune.models.whisper import WhisperFamily
from speechtune.models.whisper_format import LabelDraw, LabelText, MergeTable, Segment
from speechtune.training.config import TrainingConfig
from speechtune.training.data import BucketSampler, Pick, TrainingSet, sampler_for
from speechtune.training.format_check import check_format
from speechtune.training.formatting import format_for
from speechtune.training.pool import training_pool
from speechtune.training.preflight import PreflightError

WINDOW_S = 3.0
ALL: dict[str, Any] = {
    "timestamps_share": 0.4,
    "previous_text_share": 0.5,
    "pack": {"seconds": 3.0, "gap_s": [0.1, 0.3], "same": "speaker"},
    "empty": {"share": 0.2, "duration_s": [0.3, 1.0]},
    "keep_empty": True,
    "language_column": "language",
    "bpe_dropout": 0.3,
    "decoder_noise": 0.3,
}


def make_model(directory: Path, multilingual: bool, seconds: float = WINDOW_S) -> Path:
    """A random Whisper with a 3-second window that has a timestamp token for each of its times."""
    patch = pytest.MonkeyPatch()
    patch.setattr(tiny_whisper, "TIMESTAMPS", round(seconds * 50) + 1)
    tiny_whisper.make_transformers(directory, multilingual=multilingual, positions=150, text_positions=96)
    patch.undo()
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / str(kind), kind) for kind in (True, False)}


def family_of(models: dict[bool, Path], multilingual: bool) -> WhisperFamily:
    family = load_family(models[multilingual], language="en")
    assert isinstance(family, WhisperFamily)
    family.model.eval()
    return family


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Tones without a zero in them, so that silence between them can be found again; two sessions, two languages."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(1)
    rows = []
    for number in range(24):
        samples = int(rng.integers(3200, 14000))
        tone = 0.3 + 0.1 * np.sin(np.arange(samples) * (0.05 + 0.01 * number))
        write_audio(root / f"u{number:02d}.wav", tone.astype(np.float32))
        rows.append(
            Utterance(
                utterance_id=f"u{number:02d}",
                file_name=f"u{number:02d}.wav",
                text="" if number == 7 else f"thing {number} sing",
                duration_s=samples / 16_000,
                speaker_id=f"s{number % 3}",
                session_id=f"day{number % 2}",
                language="de" if number % 3 == 2 else "en",
                split="train" if number < 20 else "dev",
                extra={"turn": 100 - number},
            )
        )
    Corpus(root, rows, {}).save()
    return Corpus.load(root)


def build(
    corpus: Corpus, family: Any, wanted: dict[str, Any], *, seed: int = 0, rank: int = 0, **training: Any
) -> tuple[TrainingSet, BucketSampler]:
    config = TrainingConfig(trackers=[], seed=seed, format=wanted, **training)
    data = DataConfig(corpus=str(corpus.root))
    pool = training_pool(corpus, family, data, keep_empty=True)
    made = TrainingSet(pool.corpus, pool.utterances, family, data, format=format_for(config, pool, family))
    return made, sampler_for(config, made)


def picks_of(sampler: BucketSampler, epoch: int = 0) -> list[Pick]:
    return [pick for batch in sampler.plan(epoch) for pick in batch]


def token_ids(family: WhisperFamily, *names: str) -> list[int]:
    return [family.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names]  # type: ignore[misc]


def test_off_is_what_it_was_and_a_label_without_draws_is_the_familys_own(
    corpus: Corpus, models: dict[bool, Path]
) -> None:
    assert not TrainingConfig().format.enabled
    for multilingual in (True, False):
        family = family_of(models, multilingual)
        plain, sampler = build(corpus, family, {})
        assert plain.format is None
        written = family.label_format().write(LabelText((Segment("the ring", 0.0, 1.0),), "the ring"), LabelDraw())
        assert (written.tokens, written.prompt_tokens) == family.tokens("the ring")
        ours = Example(np.zeros(1600, np.float32), written.tokens, written.prompt_tokens, None, written.inputs, None)
        usual = Example(np.zeros(1600, np.float32), *family.tokens("the ring"))
        batches = [family.collate([one], 20) for one in (ours, replace(ours, targets=written.targets), usual)]
        assert all(torch.equal(batch["labels"], batches[2]["labels"]) for batch in batches)
        assert all(torch.equal(batch["decoder_input_ids"], batches[2]["decoder_input_ids"]) for batch in batches)
        # Options that concern labels alone leave the batches as they are.
        if not multilingual:
            assert build(corpus, family, {"timestamps_share": 0.5})[1].plan(1) == sampler.plan(1)


@pytest.mark.parametrize("multilingual", [True, False])
def test_every_combination_reads_back_for_many_texts(models: dict[bool, Path], multilingual: bool) -> None:
    """An own reading of the sequence: what stands where, and that only the text, its times and its end are learnt."""
    family = family_of(models, multilingual)
    names = ["startoftranscript", "endoftext", "notimestamps", "nocaptions", "startofprev", "en", "transcribe"]
    start, end, plain, nospeech, previous, english, transcribe = token_ids(family, *names)
    writer = family.label_format()
    writer.bpe_dropout, writer.noise_share = 0.4, 0.5
    rng = np.random.default_rng(0)
    letters = list(string.ascii_letters + string.punctuation + "   äß你é\N{GRINNING FACE}")
    noisy = 0
    switches = itertools.product((False, True), repeat=5)
    for number, (times, before, dropout, noise, contrast) in enumerate(list(switches) * 6):
        writer.contrast = contrast
        count = int(rng.integers(0, 3))
        texts = ["".join(rng.choice(letters, int(rng.integers(1, 7)))).strip() or "a" for _ in range(count)]
        edges = np.sort(rng.uniform(0, WINDOW_S, 2 * count)).tolist()
        segments = tuple(Segment(text, *edges[2 * place : 2 * place + 2]) for place, text in enumerate(texts))
        history = ("the first one said before", "in the inn")
        draw = LabelDraw(times, 2 * before, number if dropout else None, number if noise else None)
        written = writer.write(LabelText(segments, " ".join(texts), history), draw)
        assert len(written.inputs) == len(written.targets) == len(written.tokens) - 1 <= 96
        at = written.tokens.index(start)
        assert written.tokens.count(start) == 1
        if before:
            assert written.tokens[0] == previous
            kept = family.tokenizer.decode(written.tokens[1:at])
            assert " the first one said before in the inn".endswith(kept)
            assert 0 < at <= 96 // 2
        else:
            assert at == 0
        prompt = [start, english, transcribe] if multilingual else [start]
        expected_prompt = prompt if times else [*prompt, plain]
        assert written.tokens[at : written.prompt_tokens] == expected_prompt
        body = written.tokens[written.prompt_tokens : -1]
        assert written.tokens[-1] == end
        text = family.tokenizer.decode([token for token in body if token <= plain])
        assert text.strip() == " ".join(texts), (texts, text)
        steps = [token - plain - 1 for token in body if token > plain]
        if times and texts:
            assert len(steps) == 2 * count
            assert steps == sorted(steps)
            assert max(abs(step / 50 - edge) for step, edge in zip(steps, edges, strict=True)) <= 0.0401
            assert all(last > first for first, last in zip(steps[::2], steps[1::2], strict=True))
        else:
            assert steps == ([0] if times else [])
        learnt = dict(enumerate(written.targets))
        first = learnt.pop(at)
        inside = len(expected_prompt) > 1
        if not texts:
            assert first == nospeech
        elif inside:
            assert first == (written.tokens[at + 1] if contrast else -100)
        else:
            assert first == written.tokens[at + 1]
        for place, target in learnt.items():
            assert target == (written.tokens[place + 1] if place >= written.prompt_tokens - 1 else -100)
        changed = [place for place, token in enumerate(written.inputs) if token != written.tokens[place]]
        noisy += len(changed)
        assert noise or not changed
        assert all(place >= written.prompt_tokens and written.tokens[place] < end for place in changed)
        assert all(written.inputs[place] < end for place in changed)
        assert writer.write(LabelText(segments, " ".join(texts), history), draw) == written
    assert noisy > 50


def test_long_previous_text_loses_its_beginning_and_a_long_label_its_options(models: dict[bool, Path]) -> None:
    family = family_of(models, False)
    writer = family.label_format()
    writer.bpe_dropout = 0.9
    long = "xyz " * 60
    written = writer.write(LabelText((Segment("a", 0, 1),), "a", (long,)), LabelDraw(previous=1))
    start = written.tokens.index(family.prompt[0])
    assert start == 1 + 47  # 96 / 2 - 1, as 223 is of 448
    assert (" " + long.strip()).endswith(family.tokenizer.decode(written.tokens[1:start]))
    text = "thing " * 28 + "x" * 9  # fits exactly: not with fewer merges, not with times, not behind other text
    assert len(family.tokens(text)[0]) - 1 == 96
    written = writer.write(LabelText((Segment(text, 0, 1),), text, (long,)), LabelDraw(True, 1, bpe_seed=3))
    assert (written.tokens, written.prompt_tokens) == family.tokens(text)
    with pytest.raises(InputError, match="has too many tokens"):
        writer.write(LabelText((Segment(long, 0, 1),), long), LabelDraw())


def test_merges_left_out_at_random_give_the_same_text_and_none_left_out_the_tokenizers_own(
    models: dict[bool, Path],
) -> None:
    family = family_of(models, True)
    table = MergeTable(family.tokenizer)
    rng = np.random.default_rng(2)
    for _ in range(200):
        text = " " + " ".join(rng.choice(["the", "thing", "singing", "in", "übər", "你好", "it's"], 6))
        own = family.tokenizer.encode(text, add_special_tokens=False)
        assert table.encode(text, 0.0, rng) == own
        seed = int(rng.integers(1000))
        split = table.encode(text, 0.5, np.random.default_rng(seed))
        assert family.tokenizer.decode(split) == text
        assert len(split) >= len(own)
        assert table.encode(text, 0.5, np.random.default_rng(seed)) == split
    # A word of one merge keeps it with probability 1 - p ("in" is one merge).
    kept = sum(len(table.split("in", 0.3, np.random.default_rng(seed))) == 1 for seed in range(3000))
    assert abs(kept / 3000 - 0.7) < 4 * (0.21 / 3000) ** 0.5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_sum_of_plain_transformers_losses_of_each_example(
    corpus: Corpus, models: dict[bool, Path], smoothing: float
) -> None:
    """No mask of ours in the reference: positions to learn are found from the sequence itself."""
    from transformers import WhisperForConditionalGeneration

    family = family_of(models, True)
    data, sampler = build(corpus, family, ALL)
    items = [data[pick][0] for pick in picks_of(sampler)]
    assert any(item.tokens.count(family.tokenizer.convert_tokens_to_ids("<|startofprev|>")) for item in items)
    reference = WhisperForConditionalGeneration.from_pretrained(models[True], dtype=torch.float32).eval()
    frames = family.context_frames(WINDOW_S, "full")
    start, end, nospeech = token_ids(family, "startoftranscript", "endoftext", "nocaptions")
    expected, count = 0.0, 0
    for item in items:
        features = family.front_end([item.waveform], frames)
        assert item.inputs is not None
        with torch.no_grad():
            logits = reference(input_features=features, decoder_input_ids=torch.tensor([item.inputs])).logits[0]
        at = item.tokens.index(start)
        plain = item.tokens[at + 3] == family.prompt[-1]
        first = at + (3 if plain else 2)
        wanted = {place: item.tokens[place + 1] for place in range(first, len(item.tokens) - 1)}
        text = [token for token in item.tokens[first + 1 :] if token < end]
        wanted[at] = item.tokens[at + 1] if text else nospeech
        for place, token in wanted.items():
            scores = logits[place].log_softmax(-1)
            expected -= float((1 - smoothing) * scores[token] + smoothing * scores.mean())
            count += 1
    family.regularise(None, smoothing)
    family.model.train(smoothing > 0)
    loss = family.model(**family.collate(items, frames)).loss
    assert float(loss) == pytest.approx(expected / count, rel=1e-4)


def test_shares_are_what_is_asked_and_draws_are_independent(corpus: Corpus, models: dict[bool, Path]) -> None:
    family = family_of(models, False)
    data, _ = build(corpus, family, {"timestamps_share": 0.4, "previous_text_share": 0.5})
    assert data.format is not None
    draws = [data.format.draw(Pick(index, 1.0, 1.0, epoch, index)) for epoch in range(200) for index in range(20)]
    times = np.array([draw.timestamps for draw in draws])
    before = np.array([draw.previous > 0 for draw in draws])
    both = 4 * (0.25 / len(draws)) ** 0.5
    assert abs(times.mean() - 0.4) < both
    assert abs(before.mean() - 0.5) < both
    assert abs((times & before).mean() - 0.2) < both
    assert Counter(draw.previous for draw in draws if draw.previous).keys() == {1, 2, 3, 4}
    assert LabelDraw(**json.loads(json.dumps(draws[0].to_json()))) == draws[0]


def test_packs_hold_every_clip_once_within_the_bounds(models: dict[bool, Path]) -> None:
    from speechtune.training.format_config import FormatConfig
    from speechtune.training.format_plan import FormatPlan

    rng = np.random.default_rng(3)
    durations_s = rng.gamma(3, 1.2, 900).clip(0.3, 29.9)
    keys = [None if number % 50 == 0 else number % 7 for number in range(900)]
    tokens = rng.integers(2, 60, 900).tolist()
    config = FormatConfig(pack={"seconds": 30, "gap_s": [0.1, 0.4]}, empty={"share": 0.1})
    plan = FormatPlan(config, keys, tokens, 223, 30.0)
    shown = list(range(900))
    units = plan.units(5, 0, shown, durations_s)
    assert [unit.places for unit in plan.units(5, 0, shown, durations_s)] == [unit.places for unit in units]
    assert [unit.places for unit in plan.units(5, 1, shown, durations_s)] != [unit.places for unit in units]
    spoken = [unit for unit in units if unit.empty_s == 0]
    assert sorted(place for unit in spoken for place in unit.places) == shown
    assert len(units) - len(spoken) == round(len(spoken) / 9)
    for unit in spoken:
        assert len({keys[place] for place in unit.places}) == 1
        assert len(unit.places) == 1 or keys[unit.places[0]] is not None
        assert unit.duration_s == pytest.approx(sum(durations_s[unit.places]) + sum(unit.gaps_s))
        assert unit.duration_s <= 30
        assert len(unit.places) == 1 or sum(tokens[place] for place in unit.places) <= 223
        assert all(0.1 <= gap <= 0.4 for gap in unit.gaps_s[1:])
    assert len(spoken) < 1.4 * max(durations_s.sum() / 30, sum(tokens) / 223)

    joins = FormatPlan(FormatConfig(join_share=0.4), [0] * 900, [1] * 900, 223, 30.0)
    sizes = [len(unit.places) for epoch in range(5) for unit in joins.units(0, epoch, shown, durations_s)]
    assert set(sizes) == {1, 2, 3}
    joined = sum(size for size in sizes if size > 1) / sum(sizes)
    assert 0.34 < joined <= 0.44


def test_packs_keep_to_a_cost_and_a_number_of_clips() -> None:
    """Concat-mix: seconds x labels bounded; only what is above the bound alone may be above it."""
    from speechtune.training.format_config import FormatConfig
    from speechtune.training.format_plan import FormatPlan

    rng = np.random.default_rng(3)
    durations_s, tokens = rng.gamma(3, 1.2, 600).clip(0.3, 29.9), rng.integers(2, 60, 600).tolist()
    pack = {"seconds": 30, "max_clips": 3, "max_cost": 300.0}
    plan = FormatPlan(FormatConfig(pack=pack), [0] * 600, tokens, 223, 30.0)
    units = plan.units(5, 0, list(range(600)), durations_s)
    costs = [(unit.duration_s * sum(tokens[place] for place in unit.places), len(unit.places)) for unit in units]
    assert all(cost <= 300 or clips == 1 for cost, clips in costs)
    assert {clips for _, clips in costs} == {1, 2, 3} and sum(clips for _, clips in costs) == 600
    free = FormatPlan(FormatConfig(pack={"seconds": 30}), [0] * 600, tokens, 223, 30.0)
    assert len(free.units(5, 0, list(range(600)), durations_s)) < len(units)
    with pytest.raises(ValueError, match=r"set pack\.seconds"):
        FormatConfig(pack={"max_cost": 120})


def test_times_in_a_pack_are_where_the_speech_is(corpus: Corpus, models: dict[bool, Path]) -> None:
    """The gaps are digital silence and the clips have no zero: the boundaries are read from the samples."""
    family = family_of(models, False)
    wanted = {"timestamps_share": 1.0, "pack": {"seconds": 3.0, "gap_s": [0.1, 0.3], "same": "any"}}
    data, sampler = build(corpus, family, wanted, speed={"share": 0.7, "range": 0.2})
    assert {pick.speed for pick in picks_of(sampler)} != {1.0}
    most = 0
    for pick in picks_of(sampler):
        example, context_s = data[pick]
        assert len(example.waveform) / 16_000 <= context_s + 0.001
        heard = np.abs(example.waveform) > 0.02
        edges = np.flatnonzero(np.diff(heard.astype(int), prepend=0, append=0)) / 16_000
        spans = edges.reshape(-1, 2)[np.diff(edges.reshape(-1, 2))[:, 0] > 0.1]
        texts = [data.utterances[index].text for index in pick.indices]
        if "" in texts:  # the one without text lies in the pack without a segment
            spans = np.delete(spans, texts.index(""), axis=0)
            texts.remove("")
        steps = [token - family._first_timestamp for token in example.tokens if token >= family._first_timestamp]
        assert len(steps) == 2 * len(texts) or not texts
        if texts:
            assert np.abs(np.array(steps) / 50 - spans.ravel()).max() <= 0.0151
            assert family.text(example.tokens) == " ".join(texts)
        most = max(most, len(texts))
    assert most >= 3


def test_epochs_replay_and_processes_share_one_plan(
    corpus: Corpus, models: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = family_of(models, True)
    one, two = (build(corpus, family, ALL, seed=4, batch={"utterances": 3}) for _ in range(2))
    for epoch in (0, 1):
        assert one[1].plan(epoch) == two[1].plan(epoch)
        for pick in picks_of(one[1], epoch)[::3]:
            ours, theirs = one[0][pick][0], two[0][pick][0]
            assert (ours.tokens, ours.inputs, ours.targets) == (theirs.tokens, theirs.inputs, theirs.targets)
            assert np.array_equal(ours.waveform, theirs.waveform)
    assert one[1].plan(0) != one[1].plan(1)
    assert build(corpus, family, ALL, seed=5, batch={"utterances": 3})[1].plan(0) != one[1].plan(0)
    ranks = []
    for rank in ("0", "1"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        ranks.append(list(build(corpus, family, ALL, seed=4, batch={"utterances": 3}, epochs=2)[1]))
    assert len(ranks[0]) == len(ranks[1])
    shown = Counter(pick.index for batch in ranks[0] + ranks[1] for pick in batch if not pick.empty_s for _ in [0])
    assert set(shown) <= set(range(20))
    whole = [batch for epoch in (0, 1) for batch in one[1].plan(epoch)]
    assert all(batch in ranks[0] + ranks[1] for batch in whole)


def test_languages_and_tasks_stand_in_the_prompt_and_never_mix_in_a_pack(
    corpus: Corpus, models: dict[bool, Path]
) -> None:
    family = family_of(models, True)
    for row in corpus.utterances:
        row.extra["task"] = "translate" if row.utterance_id in ("u00", "u03") else None
    wanted = {**ALL, "task_column": "task", "pack": {"seconds": 3.0, "same": "any"}}
    data, sampler = build(corpus, family, wanted)
    packed = 0
    for pick in picks_of(sampler):
        rows = [data.utterances[index] for index in pick.indices]
        assert len({(row.language, row.extra["task"]) for row in rows}) == 1
        packed += len(rows) > 1
        names = family.tokenizer.convert_ids_to_tokens(data[pick][0].tokens)
        at = names.index("<|startoftranscript|>")
        assert names[at + 1] == f"<|{rows[0].language}|>"
        assert names[at + 2] == f"<|{rows[0].extra['task'] or 'transcribe'}|>"
    assert packed > 3
    chinese = family.label_format().write(LabelText((Segment("你", 0, 1),), "你", language="zh"), LabelDraw())
    assert family.tokenizer.decode(chinese.tokens[4:-1]) == "你"
    with pytest.raises(InputError, match=r"utterance u02: this Whisper model knows English only, not 'de'"):
        build(corpus, family_of(models, False), {"language_column": "language"})
    with pytest.raises(InputError, match=r"utterance u00: .*English-only.*translate"):
        build(corpus, family_of(models, False), {"task_column": "task"})
    with pytest.raises(InputError, match=r"turn '100': use transcribe or translate"):
        build(corpus, family, {"task_column": "turn"})
    for row in corpus.utterances:
        del row.extra["task"]


def test_previous_text_is_what_was_said_before_in_the_same_session(
    corpus: Corpus, models: dict[bool, Path], tmp_path: Path
) -> None:
    family = family_of(models, False)

    def before(index: int, rows: Corpus = corpus, **more: Any) -> tuple[str, ...]:
        data, _ = build(rows, family, {"previous_text_share": 1.0, "previous_text_utterances": 2, **more})
        assert data.format is not None
        return data.format.label(Pick(index, 1.0), [(0.0, 1.0)]).previous

    assert before(4) == ("thing 0 sing", "thing 2 sing")
    assert before(1) == ()
    assert before(4, previous_text_by="speaker_id") == ("thing 1 sing",)
    assert before(4, previous_text_order="turn") == ("thing 8 sing", "thing 6 sing")
    # Spans of one recording: by their start, whatever the order of the rows.
    spans = [
        replace(row, file_name="u00.wav", start_s=0.01 * (19 - number), end_s=0.01 * (20 - number), duration_s=0.01)
        for number, row in enumerate(corpus.utterances[:20])
    ]
    assert before(4, Corpus(corpus.root, spans)) == ("thing 6 sing", "thing 5 sing")
    # What stands in the same pack is not given away by the text before it.
    data, _ = build(corpus, family, {"previous_text_share": 1.0, "pack": {"seconds": 3, "same": "session"}})
    assert data.format is not None
    from speechtune.training.format_plan import Part

    together = Pick(4, 2.0, parts=(Part(2, 2, 1.0, 0.1),))
    assert data.format.label(together, [(0, 1), (1, 2)]).previous == ("thing 0 sing",)
    alone = [replace(row, session_id=None) for row in corpus.utterances]
    with pytest.raises(InputError, match=r"do not say which utterance came before which .*previous_text_by"):
        before(4, Corpus(corpus.root, alone))


def test_what_cannot_be_done_is_refused_in_one_sentence(
    corpus: Corpus, models: dict[bool, Path], tmp_path: Path
) -> None:
    family = family_of(models, False)
    short = load_family(make_model(tmp_path / "short", False, seconds=2.0))
    with pytest.raises(InputError, match=r"timestamp tokens up to 2\.00 s only, for a window of 3 s"):
        build(corpus, short, {"timestamps_share": 0.1})
    tempo = {"effects": [{"kind": "tempo"}]}
    with pytest.raises(InputError, match="changes the length of clips"):
        build(corpus, family, {"join_share": 0.5}, augment=tempo)
    with pytest.raises(InputError, match="no utterance of the training data has studio"):
        build(corpus, family, {"join_share": 0.5, "pack": {"same": "studio"}})
    for wrong in (
        {"join_share": 0.2, "pack": {"seconds": 30}},
        {"previous_text_by": "age"},
        {"pack": {"gap_s": [2, 1]}},
    ):
        with pytest.raises(ValueError, match=r"join_share has no|previous_text_by and|gap_s is"):
            TrainingConfig(format=wrong)

    class Other:
        """A family without a training format."""

        name = "other"
        limits, language, mel_bins = family.limits, None, 80

        def __getattr__(self, name: str) -> Any:
            if name in ("label_format", "allow_empty"):
                raise AttributeError(name)
            return getattr(family, name)

    for option in ("timestamps_share", "bpe_dropout", "decoder_noise", "previous_text_share"):
        with pytest.raises(InputError, match=rf"the family other has no such training format: remove .*{option}"):
            build(corpus, Other(), {option: 0.5})
    data, sampler = build(corpus, Other(), {"pack": {"seconds": 3, "same": "any"}})
    longest = max(picks_of(sampler), key=lambda pick: len(pick.parts))
    assert family.text(data[longest][0].tokens) == " ".join(
        " ".join(data.utterances[index].text for index in longest.indices).split()
    )


def test_a_model_trained_with_empty_clips_says_nothing_in_silence_and_knows_it(
    corpus: Corpus, models: dict[bool, Path], tmp_path: Path
) -> None:
    """The saved model: its greedy text, and the no-speech probability where openai/whisper reads it."""
    for multilingual in (False, True):
        torch.manual_seed(0)
        family = load_family(models[multilingual], language="en")
        assert isinstance(family, WhisperFamily)
        spoken = replace(corpus.utterances[0], text="thing")
        rows = Corpus(corpus.root, [replace(spoken, utterance_id=f"u{n}", session_id="a") for n in range(2)])
        wanted = {"empty": {"share": 0.5, "duration_s": [0.3, 1.4]}, "timestamps_share": 0.3}
        data, sampler = build(rows, family, wanted, epochs=200, audio_context={"full_share": 0.0})
        assert data.format is not None
        data.format.begin()
        optimiser = torch.optim.AdamW(family.model.parameters(), 3e-3)
        family.model.train()
        for epoch in range(200):
            items = [data[pick][0] for pick in picks_of(sampler, epoch)]
            family.model(**family.collate(items, 150)).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        family.model.eval()
        quiet = (0.0003 * np.random.default_rng(9).standard_normal(16_000)).astype(np.float32)
        speech = load_audio(corpus.path_of(spoken))
        clips = [np.zeros(12_000, np.float32), quiet, speech]
        family.save(tmp_path / str(multilingual))
        saved: Any = load_family(tmp_path / str(multilingual), language="en")
        assert [found.text for found in saved.generate(clips, 150, max_new_tokens=8)] == ["", "", "thing"]
        with torch.no_grad():
            start = torch.full((3, 1), family.prompt[0])
            scores = saved.model(input_features=family.front_end(clips, 150), decoder_input_ids=start).logits[:, 0]
        nospeech = scores.softmax(-1)[:, family.prompt[-1] - 1].tolist()
        assert min(nospeech[:2]) > 0.6 > 0.3 > nospeech[2]  # 0.6: openai/whisper's threshold


@pytest.mark.parametrize("fault", ["previous", "nospeech", "times", "language", "text"])
def test_the_preflight_finds_a_wrong_label(corpus: Corpus, models: dict[bool, Path], fault: str) -> None:
    family: Any = family_of(models, True)
    data, sampler = build(corpus, family, {**ALL, "timestamps_share": 0.6})
    assert "with times" in check_format(data, sampler)
    collate = family.collate
    german, nospeech = token_ids(family, "zh", "nocaptions")

    def wrong(examples: Any, n_frames: int) -> dict[str, torch.Tensor]:
        batch = collate(examples, n_frames)
        labels, inputs = batch["labels"], batch["decoder_input_ids"]
        if fault == "previous":
            labels[:, 0] = torch.where(labels[:, 0] == -100, inputs[:, 1], labels[:, 0])
        elif fault == "nospeech":
            labels[labels == nospeech] = -100
        elif fault == "times":
            labels[labels > family._first_timestamp] += 4
        elif fault == "language":
            inputs[inputs == token_ids(family, "de")[0]] = german
        else:
            letter = family.tokenizer.convert_tokens_to_ids("s")
            labels[labels == letter] = letter + 1
        return batch

    family.collate = wrong
    message = {
        "previous": "previous text, prompt or padding is learnt",
        "nospeech": "the no-speech token is not learnt",
        "times": "a time is .* s from its boundary|beyond the window",
        "language": "the tokens of language and task",
        "text": "it reads",
    }
    with pytest.raises(PreflightError, match=message[fault]):
        check_format(data, sampler)


KILL = """
import transformers
original = transformers.Trainer.training_step
def step(self, *a, **k):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *a, **k)
transformers.Trainer.training_step = step
"""


def test_a_run_with_everything_on_resumes_to_the_same_weights(
    write_recipe: Callable[..., Path], corpus: Corpus, models: dict[bool, Path], tmp_path: Path
) -> None:
    recipe = write_recipe(
        data={"corpus": str(corpus.root)},
        model={"base": str(models[True]), "language": "en"},
        training={
            "epochs": 2,
            "batch": {"utterances": 3},
            "checkpoint_every_steps": 1,
            "label_smoothing": 0.1,
            "trackers": [],
            "format": ALL,
        },
        evaluation={"contexts": ["fit"], "baseline_contexts": ["fit"]},
    )

    def start(run: str, hook: str = "", *words: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys, os, signal\n{hook}\nfrom speechtune.cli.app import main\nmain()"
        command = [sys.executable, "-c", code, "train", str(recipe), "--out", str(tmp_path / run), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = start("whole")
    assert whole.returncode == 0, whole.stderr
    assert "labels in the recipe's format read back" in whole.stderr
    assert start("other", KILL).returncode == -signal.SIGKILL
    resumed = start("other", "", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "other")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
