"""Does GRPO on the error rate move it? A fine-tuned model, a few dozen steps, unseen speakers before and after.

It trains on clips of the train split that the model was fine-tuned on, or with --unseen on those of half of the dev
speakers, and measures on clips of other speakers, once, after the last step (nothing is chosen by them). Reported are
their greedy WER before and after with the paired difference and its interval, and the mean reward (minus the WER) of
sampled transcripts of the same clips, with the same draws.

The same command again continues where it stopped.

    python benchmarks/grpo.py --corpus CORPUS --model RUN/model --train 96 --measure 160 --out DIR
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import drawn_corpus

from speechtune.audio.io import load_audio
from speechtune.core.files import read_json, read_jsonl, write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches
from speechtune.models.family import load_family
from speechtune.models.obtaining import resolve_model
from speechtune.models.policy import policy_of
from speechtune.training.objectives.grpo_config import RewardConfig
from speechtune.training.recipe import Recipe
from speechtune.training.rewards import Reward
from speechtune.training.run import train


def recipe(corpus: Path, options: argparse.Namespace) -> Recipe:
    """One GRPO training."""
    grpo = {
        "weight": 1.0,
        "method": options.method,
        "samples": options.samples,
        "temperature": options.temperature,
        "max_new_tokens": options.max_new_tokens,
        "kl": options.kl,
        "updates": options.updates,
        "reward": {"wer": options.wer, "cer": options.cer},
    }
    return Recipe.model_validate(
        {
            "data": {"corpus": str(corpus), "case": "lower"},
            "model": {"base": str(options.model)},
            "training": {
                "epochs": options.epochs,
                "learning_rate": options.learning_rate,
                "schedule": "constant",
                "batch": {"utterances": options.batch},
                "audio_context": {"jitter_s": 0.0, "full_share": 0.0},
                "objectives": {"label_weight": options.label_weight, "grpo": grpo},
                "precision": "fp32",
                "trackers": [],
                "seed": options.seed,
            },
            "decoding": {"max_new_tokens": options.max_new_tokens},
            "evaluation": {"contexts": ["fit"], "baseline_contexts": ["fit"]},
        }
    )


@torch.inference_mode()
def sampled_rewards(model: Path, corpus: Corpus, settings: Recipe, samples: int) -> dict[str, float]:
    """Mean reward of ``samples`` transcripts of each dev clip, by utterance; the draws do not depend on the model."""
    family: Any = load_family(resolve_model(str(model)))
    family.model.eval()
    grpo, found = settings.training.objectives.grpo, {}
    policy, reward = policy_of(family, "the benchmark"), Reward(RewardConfig(), family.language)
    for batch, frames in plan_batches(family, corpus.utterances, settings.decoding):
        waves = [load_audio(corpus.path_of(one), one.start_s, one.end_s) for one in batch]
        hidden = family.part("encoder")(family.front_end(waves, frames)).last_hidden_state
        prompts = torch.tensor([family.prompt] * len(batch))
        draws = [np.random.default_rng([7, *one.utterance_id.encode()]) for one in batch]
        uniforms = np.concatenate([draw.random((samples, grpo.max_new_tokens)) for draw in draws])
        wide = [row for row in range(len(batch)) for _ in range(samples)]
        tokens = policy.draw(hidden[wide], prompts[wide], torch.from_numpy(uniforms), grpo.temperature)
        for place, one in enumerate(batch):
            own = tokens[place * samples : (place + 1) * samples]
            texts = [family.text(row[policy.counted(row[None])[0]].tolist()) for row in own]
            found[one.utterance_id] = float(np.mean(reward(one.text.lower(), texts)))
    return found


def reward_difference(before: dict[str, float], after: dict[str, float], corpus: Corpus) -> dict[str, float]:
    """The mean rewards and the paired difference with its 95 % interval, speakers drawn anew."""
    speakers = [one.speaker_id for one in corpus]
    changes = np.array([after[one.utterance_id] - before[one.utterance_id] for one in corpus])
    groups = np.unique(np.array([str(speaker) for speaker in speakers]), return_inverse=True)[1]
    rng, means = np.random.default_rng(0), []
    sums, counts = np.bincount(groups, changes), np.bincount(groups)
    for _ in range(4000):
        drawn = rng.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    values = {
        "before": np.mean(list(before.values())),
        "after": np.mean(list(after.values())),
        "difference": changes.mean(),
        "low": low,
        "high": high,
    }
    return {name: round(float(value), 5) for name, value in values.items()}


def main() -> None:
    """Draw the clips, run the stage, print what moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the fine-tuned model to start from")
    parser.add_argument("--method", default="grpo", choices=["grpo", "mwer"])
    parser.add_argument("--train", type=int, default=96, help="clips of the train split")
    parser.add_argument("--measure", type=int, default=160, help="clips of the dev split")
    parser.add_argument(
        "--unseen", action="store_true", help="train on half of the dev speakers, measure on the others"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=5e-6)
    parser.add_argument("--kl", type=float, default=0.04)
    parser.add_argument("--label-weight", type=float, default=0.0)
    parser.add_argument("--wer", type=float, default=1.0)
    parser.add_argument("--cer", type=float, default=0.0)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    clips = {"train": options.train, "dev": options.measure}
    whole, out = Corpus.load(options.corpus), options.out / "corpus"
    where = drawn_corpus(whole, out, clips, options.seed, unseen=options.unseen)
    settings = recipe(where, options)
    start_s = time.monotonic()
    finished = train(settings, options.out / "run", resume=True)
    train_s = time.monotonic() - start_s
    dev = Corpus.load(where).split("dev")
    before = sampled_rewards(options.model, dev, settings, options.samples)
    after = sampled_rewards(options.out / "run" / "model", dev, settings, options.samples)
    comparison = finished.summary["comparisons"][0]
    steps = [row for row in read_jsonl(options.out / "run" / "metrics.jsonl") if row["kind"] == "train"]
    facts = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "dev_wer": {name: comparison[name] for name in ("wer_before", "wer_after", "difference")},
        "dev_reward": reward_difference(before, after, dev),
        "train": [{key: value for key, value in row.items() if "grpo" in key or key == "step"} for row in steps],
        "preflight": read_json(options.out / "run" / "preflight.json")["checks"]["loss"],
        "train_and_decode_s": round(train_s, 1),
        "provenance": provenance(options.seed),
    }
    write_json(options.out / "grpo.json", facts)
    wer, reward = facts["dev_wer"], facts["dev_reward"]
    print(f"dev WER     {100 * wer['wer_before']:6.2f} -> {100 * wer['wer_after']:6.2f} %   {wer['difference']}")
    print(f"mean reward {reward['before']:6.3f} -> {reward['after']:6.3f}     {reward}")
    print(f"{train_s:.0f} s")


if __name__ == "__main__":
    main()
