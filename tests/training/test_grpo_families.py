"""GRPO and minimum word error rate training on CTC models and Qwen3-ASR: the laws that hold for Whisper."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import tiny_ctc
import tiny_qwen3_asr
import torch
from test_grpo import build, call, columns, gradients
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.models.config import ModelConfig
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import Example, load_family
from speechtune.models.policy import policy_of
from speechtune.models.policy_ctc import CtcPolicy

TEXTS = ("abba", "c", "bad cab", "ab cd")
CTC = ("wav2vec2-layer", "parakeet")
FAMILIES = (*CTC, "qwen3_asr", "qwen3_asr-open", "qwen3_asr-prompt")
"""Open: no language is given, so the model writes its tag; prompt: the tag is not part of the answer."""

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("policies")
    for kind in CTC:
        tiny_ctc.make_ctc(root / kind, kind)
    tiny_qwen3_asr.make_qwen3_asr(root / "qwen3_asr", spread=0.3)
    return root


@pytest.fixture
def make(stored: Path) -> Make:
    def made(kind: str) -> Any:
        name, _, tag = kind.partition("-")
        if name == "qwen3_asr":
            family = load_family(stored / name, language=None if tag == "open" else "en", device="cpu")
            family.configure(ModelConfig(qwen3_asr={"language_tag": tag if tag == "prompt" else "answer"}))  # type: ignore[attr-defined]
        else:
            family = load_family(stored / kind, device="cpu")
            family.prepare(CtcConfig(), TEXTS, 0)
            family.model.config.apply_spec_augment = False  # type: ignore[union-attr]
        for module in family.model.modules():
            for one in ("p", "dropout", "attention_dropout", "activation_dropout"):
                if isinstance(module.__dict__.get(one), float):
                    setattr(module, one, 0.0)
        if name != "qwen3_asr":
            with torch.no_grad():
                for parameter in family.part("head").parameters():
                    parameter.mul_(8)  # transcripts of a group differ in how likely they are
        family.model.train()
        return family

    return made


def examples(family: Any) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tiny_ctc.spoken(text, rng), *family.tokens(text)) for text in TEXTS]


def transcript(policy: Any, row: torch.Tensor) -> list[int]:
    """The token ids of a sequence, its end included for a model that has one."""
    own = row[policy.counted(row[None])[0]].tolist()
    return [token for token in own if token != policy.end] if isinstance(policy, CtcPolicy) else own


def log_prob_alone(family: Any, example: Example, tokens: list[int], heat: float = 1.0) -> torch.Tensor:
    """Of one transcript of one clip without batch and padding: PyTorch's CTC loss, or the plain model's logits."""
    if family.name == "ctc":
        batch = family.collate([example], 0)
        logits = family.model(**{name: one for name, one in batch.items() if name != "labels"}).logits[0]
        values = (logits[: family.logit_frames(len(example.waveform))] / heat).log_softmax(-1)[:, None]
        lengths = torch.tensor([len(values)]), torch.tensor([len(tokens)])
        return -functional.ctc_loss(
            values, torch.tensor([tokens], dtype=torch.long), *lengths, blank=0, reduction="sum"
        )
    given = family.format.expand(
        family.format.prompt(family.prompt, with_tag=True), family.front_end.tokens(len(example.waveform))
    )
    features, mask = family.front_end([example.waveform])
    ids = torch.tensor([[*given, *tokens]])
    model = family.model
    logits = model(input_ids=ids, input_features=features, input_features_mask=mask).logits[0]
    values = (logits[len(given) - 1 : -1] / heat).log_softmax(-1)
    return values[torch.arange(len(tokens)), torch.tensor(tokens)].sum()


def drawn(policy: Any, batch: dict[str, torch.Tensor], seed: int = 0, heat: float = 1.0) -> torch.Tensor:
    hidden, prompts = policy.encode(batch).detach(), policy.prompts(batch)
    count = max(policy.draws(10, prompts))
    uniforms = torch.rand(len(hidden), count, generator=torch.manual_seed(seed), dtype=torch.float64)
    return policy.draw(hidden, prompts, uniforms, heat)


@pytest.mark.parametrize("heat", [1.0, 0.6])
@pytest.mark.parametrize("kind", FAMILIES)
def test_log_probs_are_those_of_each_clip_alone(kind: str, heat: float, make: Make) -> None:
    family = make(kind)
    policy, batch = policy_of(family, "a test"), family.collate(examples(family), 0)
    for tokens in (
        drawn(policy, batch, heat=heat),
        *([policy.best(policy.encode(batch), policy.prompts(batch), 2, 9)[::2]]),
    ):
        found = policy.log_probs(policy.encode(batch), policy.prompts(batch), tokens, heat)
        assert torch.isfinite(found).all() and not found[~policy.counted(tokens)].any()
        for row, example in enumerate(examples(family)):
            alone = log_prob_alone(family, example, transcript(policy, tokens[row]), heat)
            assert float(found[row].sum()) == pytest.approx(float(alone), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_labels_as_sequences_read_as_the_transcripts(kind: str, make: Make) -> None:
    family = make(kind)
    policy, batch = policy_of(family, "a test"), family.collate(examples(family), 0)
    answers = policy.answers(batch)
    assert [family.text(transcript(policy, row)) for row in answers] == list(TEXTS)
    assert all(int(policy.counted(row[None]).sum()) == len(row) for row in answers)
    if kind == "qwen3_asr":  # the tag is in the prompt, as at inference
        assert family.format.marker not in torch.cat(answers).tolist()
        prompts = policy.prompts(batch)
        assert all(int(row[-1]) == family.format.marker for row in prompts)


def test_a_ctc_transcript_has_the_probability_of_all_its_paths_and_is_drawn_so_often(make: Make) -> None:
    family = make("wav2vec2-layer")
    policy, vocabulary = policy_of(family, "a test"), 3
    logits = torch.randn(1, 4, vocabulary, generator=torch.manual_seed(0))
    paths = list(itertools.product(range(vocabulary), repeat=4))
    log_probs = logits[0].log_softmax(-1)
    sums: dict[tuple[int, ...], float] = {}
    for path in paths:
        text = tuple(token for token, _ in itertools.groupby(path) if token)
        sums[text] = sums.get(text, 0.0) + float(sum(log_probs[frame, token] for frame, token in enumerate(path)).exp())  # type: ignore[union-attr]
    texts = list(sums)
    tokens = torch.zeros(len(texts), 5, dtype=torch.long)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text, dtype=torch.long)
    frames = torch.tensor([[4]])
    found = policy.log_probs(logits.expand(len(texts), -1, -1), frames.expand(len(texts), -1), tokens, 1.0).sum(1).exp()
    np.testing.assert_allclose(found.numpy(), [sums[text] for text in texts], rtol=1e-4)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)
    count = 20_000
    uniforms = torch.rand(count, 4, generator=torch.manual_seed(1), dtype=torch.float64)
    rows = policy.draw(logits.expand(count, -1, -1), frames.expand(count, -1), uniforms, 1.0)
    seen: dict[tuple[int, ...], int] = {}
    for row in rows.tolist():
        key = tuple(token for token in row if token)
        seen[key] = seen.get(key, 0) + 1
    for text, probability in sums.items():
        assert abs(seen.get(text, 0) / count - probability) < 4 * (probability / count) ** 0.5 + 1e-3


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_sample_depends_on_its_own_clip_and_numbers_alone(kind: str, make: Make) -> None:
    family = make(kind)
    policy, items = policy_of(family, "a test"), examples(family)
    batch = family.collate(items, 0)
    prompts = policy.prompts(batch)
    uniforms = torch.rand(4, max(policy.draws(10, prompts)), generator=torch.manual_seed(2), dtype=torch.float64)
    together = policy.draw(policy.encode(batch), prompts, uniforms, 1.0)
    for row, item in enumerate(items):
        one = family.collate([item], 0)
        alone = policy.draw(policy.encode(one), policy.prompts(one), uniforms[[row]], 1.0)
        assert transcript(policy, alone[0]) == transcript(policy, together[row])


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_gradient_is_reinforce_with_the_groups_baseline(kind: str, make: Make, tmp_path: Path) -> None:
    family = make(kind)
    items = examples(family)
    objectives, term = build(family, tmp_path, divide_by_std=False, updates=2, kl=0.04, reward={"wer": 0, "cer": 1})
    objectives.loss(call(family.model, family.collate(items, 0))).backward()
    found = gradients(family.model)
    family.model.zero_grad()
    expected, labels = torch.zeros(()), [len(item.tokens) - item.prompt_tokens for item in items]
    informative = 0
    for item, text, group in zip(items, TEXTS, term.groups.values(), strict=True):
        rows = [transcript(term.policy, row) for row in group.tokens]
        normalise = term.reward.normalise
        rewards = [-jiwer.cer(normalise(text), normalise(family.text(row))) for row in rows]
        np.testing.assert_allclose(group.rewards.numpy(), rewards, rtol=1e-5)
        informative += len(set(rewards)) > 1
        weight = (len(item.tokens) - item.prompt_tokens) / sum(labels) / len(rows)
        for row, reward in zip(rows, rewards, strict=True):
            length = len(row) + (family.name == "ctc")
            log_prob = log_prob_alone(family, item, row) / length
            expected = expected - weight * (reward - sum(rewards) / len(rewards)) * log_prob
    assert informative >= 2
    expected.backward()
    wanted = gradients(family.model)
    assert set(wanted) <= set(found)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-5 * (1 + float(gradient.abs().max())))
    logged = columns(objectives)
    assert logged["grpo_kl"] == pytest.approx(0, abs=1e-6) and logged["grpo_clip_share"] == 0.0


@pytest.mark.parametrize("more", [{}, {"method": "mwer"}])
@pytest.mark.parametrize("kind", [*CTC, "qwen3_asr"])
def test_cutting_a_step_changes_neither_samples_nor_gradient(
    kind: str, more: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    family = make(kind)
    items = examples(family)
    objectives, _ = build(family, tmp_path, reward={"wer": 0, "cer": 1}, **more)
    labels = torch.tensor(sum(len(item.tokens) - item.prompt_tokens for item in items))
    objectives.loss(call(family.model, family.collate(items, 0), labels)).backward()
    whole, logged = gradients(family.model), columns(objectives)
    family.model.zero_grad()
    for cut in ([0, 2], [1], [3]):
        batch = family.collate([items[place] for place in cut], 0)
        objectives.loss(call(family.model, batch, labels)).backward()
    assert columns(objectives)["grpo_reward"] == pytest.approx(logged["grpo_reward"], rel=1e-6)
    assert any(bool(one.any()) for one in whole.values())
    for name, gradient in gradients(family.model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=2e-2, atol=2e-4 * (1 + float(whole[name].abs().max())))


@pytest.mark.parametrize("candidates", ["sampled", "beam"])
@pytest.mark.parametrize("kind", ["wav2vec2-layer", "qwen3_asr"])
def test_minimum_word_error_rate_is_the_expectation_over_the_list(
    kind: str, candidates: str, make: Make, tmp_path: Path
) -> None:
    family = make(kind)
    item = examples(family)[2]
    objectives, term = build(
        family, tmp_path, method="mwer", candidates=candidates, reward={"wer": 0, "cer": 1}, max_new_tokens=8
    )
    kept: list[torch.Tensor] = []
    original = term._candidates

    def listen(*words: Any) -> torch.Tensor:
        kept.append(original(*words))
        return kept[-1]

    term._candidates = listen  # type: ignore[method-assign, assignment]
    loss = objectives.loss(call(family.model, family.collate([item], 0)))
    rows = [transcript(term.policy, row) for row in kept[0][0]]
    normalise = term.reward.normalise
    errors = torch.tensor([jiwer.cer(normalise(TEXTS[2]), normalise(family.text(row))) for row in rows])
    weights = torch.stack([log_prob_alone(family, item, row) for row in rows]).softmax(0)
    assert float(loss) == pytest.approx(float((weights * (errors - errors.mean())).sum()), rel=1e-3, abs=1e-5)
    if candidates == "beam":
        assert len({tuple(row) for row in rows}) == 4


@pytest.mark.parametrize("kind", ["wav2vec2-layer", "qwen3_asr"])
def test_the_reward_of_samples_rises_and_the_divergence_from_the_start_with_it(
    kind: str, make: Make, tmp_path: Path
) -> None:
    family = make(kind)
    items = examples(family)
    batch = family.collate(items, 0)
    optimiser = torch.optim.Adam(family.model.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        family.model(**batch).loss.backward()
        optimiser.step()
    objectives, _ = build(family, tmp_path, samples=8, max_new_tokens=10, kl=0.01, reward={"wer": 0.0, "cer": 1.0})

    def mean_reward() -> dict[str, float]:
        with torch.no_grad():
            objectives.loss(call(family.model, batch, step=10_000))
        return columns(objectives)

    before = mean_reward()
    assert before["grpo_kl"] == pytest.approx(0, abs=1e-6)
    optimiser = torch.optim.Adam(family.model.parameters(), lr=5e-4)
    for step in range(25):
        optimiser.zero_grad()
        objectives.loss(call(family.model, batch, step=step)).backward()
        optimiser.step()
    columns(objectives)
    after = mean_reward()
    assert after["grpo_reward"] > before["grpo_reward"] + 0.05
    assert after["grpo_kl"] > 1e-4


def test_too_few_likely_transcripts_for_a_beams_group_are_one_sentence(make: Make) -> None:
    family = make("wav2vec2-layer")
    logits = torch.full((1, 1, 7), -100.0)
    logits[..., 3] = 0.0
    with pytest.raises(InputError, match="asks for 4: lower it"):
        policy_of(family, "a test").best(logits, torch.tensor([[1]]), 4, 9)


@pytest.mark.parametrize("kind", ["parakeet", "qwen3_asr"])
def test_a_run_with_an_adapter_has_its_columns(kind: str, stored: Path, tmp_path: Path) -> None:
    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    corpus = tiny_ctc.write_tones(tmp_path / "corpus", tiny_ctc.TEXTS[:6])
    recipe = tiny_ctc.write_recipe(
        tmp_path / "recipe.yaml",
        stored / kind,
        corpus,
        model={"base": str(stored / kind), "language": "en" if kind == "qwen3_asr" else None},
        adapter={"kind": "lora", "rank": 2, "targets": ["attention", "mlp"]},
        training={
            "epochs": 1,
            "learning_rate": 1e-4,
            "gradient_checkpointing": True,
            "objectives": {"label_weight": 0.1, "grpo": {"weight": 1, "samples": 3, "max_new_tokens": 6, "updates": 2}},
        },
        decoding={"max_new_tokens": 6},
    )
    train(load_recipe(recipe), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["kind"] == "train"]
    assert all(row["grpo_tokens"] >= 1 and np.isfinite(row["loss"]) for row in trained)
    assert "the same in 1 batch" in json.loads((tmp_path / "run" / "preflight.json").read_text())["checks"]["loss"]


def test_every_family_that_declares_it_has_a_policy() -> None:
    from speechtune.models.capabilities import declared
    from speechtune.models.policy import POLICIES

    assert {name for name, (kind, _) in declared().items() if kind.capabilities.grpo} == set(POLICIES)  # type: ignore[attr-defined]
