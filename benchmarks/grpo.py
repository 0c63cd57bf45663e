"""Does GRPO on the error rate move it? Measured on speakers that no training heard, before and after.

The corpus is divided by speakers: --speakers of them are learnt from, the others are measured, once, after the last
step (nothing is chosen by them; checkpoints are compared on a few clips of the speakers that are learnt from). With
--first-epochs the model is fine-tuned on their clips for so many epochs; GRPO goes on from there with the same clips,
and with --control so does plain cross-entropy, for as many steps at the same rate. Reported are the greedy WER before
and after with the paired difference and its interval over speakers, and the mean reward (minus the WER) of sampled
transcripts of some of the measured clips, with the same draws.

The same command again continues where it stopped.

    python benchmarks/grpo.py --corpus CORPUS --model whisper-tiny.en --first-epochs 1 --control --out DIR
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechtune.audio.io import load_audio
from speechtune.core.files import read_jsonl, write_json
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


def divided_corpus(corpus: Corpus, out: Path, options: argparse.Namespace) -> Path:
    """The corpus with splits train and dev (of the speakers that are learnt from) and measured (of the others).

    Audio stays where it is (paths are absolute); one that was divided before is kept.
    """
    if (out / "corpus.json").is_file():
        return out
    rng = np.random.default_rng(options.seed)
    speakers = sorted({str(one.speaker_id) for one in corpus})
    heard = {speakers[place] for place in rng.permutation(len(speakers))[: options.speakers]}
    rows: dict[str, list[Any]] = {"train": [], "measured": []}
    for one in corpus.utterances:
        one.file_name = str(corpus.path_of(one).resolve())
        one.split = "train" if str(one.speaker_id) in heard else "measured"
        rows[one.split].append(one)
    for place in rng.permutation(len(rows["train"]))[: options.dev]:
        rows["train"][place].split = "dev"
    kept = [*rows["train"], *rows["measured"]]
    out.mkdir(parents=True)
    Corpus(out, kept, {"kept": len(kept), "divided_from": str(corpus.root), "seed": options.seed}).save()
    return out


def recipe(corpus: Path, options: argparse.Namespace, stage: str, base: str) -> Recipe:
    """One training: ``first`` (plain fine-tuning), ``grpo``, or ``control`` (plain, with the steps of ``grpo``)."""
    grpo = {
        "weight": 1.0,
        "method": options.method,
        "samples": options.samples,
        "temperature": options.temperature,
        "max_new_tokens": options.max_new_tokens,
        "kl": options.kl,
        "updates": options.updates,
        "divide_by_std": not options.plain_advantage,
        "reward": {"wer": options.wer, "cer": options.cer},
    }
    plain = stage != "grpo"
    measured = [{"name": "measured", "split": "measured"}]
    return Recipe.model_validate(
        {
            "data": {"corpus": str(corpus), "case": "lower"},
            "model": {"base": base},
            "training": {
                "epochs": options.first_epochs if stage == "first" else options.epochs,
                "learning_rate": 3e-5 if stage == "first" else options.learning_rate,
                "schedule": "linear" if stage == "first" else "constant",
                "batch": {"utterances": 16 if stage == "first" else options.batch},
                "audio_context": {"full_share": 0.0, **({} if stage == "first" else {"jitter_s": 0.0})},
                "objectives": {} if plain else {"label_weight": options.label_weight, "grpo": grpo},
                "precision": "fp32",
                "trackers": [],
                "seed": options.seed,
            },
            "decoding": {"max_new_tokens": options.max_new_tokens},
            "evaluation": {
                "contexts": ["fit"],
                "baseline_contexts": ["fit"],
                "sets": [{"name": "dev", "split": "dev"}] if stage == "first" else measured,
            },
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
    """Divide the corpus, train, print what moved."""
    options = read_options()
    where = divided_corpus(Corpus.load(options.corpus), options.out / "corpus", options)
    base = options.model
    if options.first_epochs:
        train(recipe(where, options, "first", base), options.out / "first", resume=True)
        base = str(options.out / "first" / "model")
    facts: dict[str, Any] = {"options": {key: str(value) for key, value in vars(options).items()}}
    some = Corpus.load(where).split("measured")
    places = np.random.default_rng(options.seed).permutation(len(some.utterances))[: options.sampled]
    some = Corpus(some.root, [some.utterances[place] for place in sorted(places)], some.card)
    rewards: dict[str, float] | None = None
    for stage in ["grpo", *(["control"] if options.control else [])]:
        settings, run = recipe(where, options, stage, base), options.out / stage
        start_s = time.monotonic()
        finished = train(settings, run, resume=True)
        seconds = round(time.monotonic() - start_s, 1)
        comparison = finished.summary["comparisons"][0]
        rewards = rewards or sampled_rewards(Path(base), some, settings, options.samples)
        after = sampled_rewards(run / "model", some, settings, options.samples)
        steps = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]
        facts[stage] = {
            "wer": {name: comparison[name] for name in ("wer_before", "wer_after", "difference")},
            "reward": reward_difference(rewards, after, some),
            "train": [{key: value for key, value in row.items() if "grpo" in key or key == "step"} for row in steps],
            "train_and_decode_s": seconds,
        }
        wer, reward = facts[stage]["wer"], facts[stage]["reward"]
        print(f"{stage}")
        print(f"  WER         {100 * wer['wer_before']:6.2f} -> {100 * wer['wer_after']:6.2f} %   {wer['difference']}")
        print(f"  mean reward {reward['before']:6.3f} -> {reward['after']:6.3f}     {reward}")
        print(f"  {seconds:.0f} s", flush=True)
    facts["provenance"] = provenance(options.seed)
    write_json(options.out / "grpo.json", facts)


def read_options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="whisper-tiny.en", help="the model to start from")
    parser.add_argument("--first-epochs", type=int, default=0, help="epochs of plain fine-tuning before; 0: none")
    parser.add_argument("--control", action="store_true", help="also go on with plain fine-tuning instead")
    parser.add_argument("--method", default="grpo", choices=["grpo", "mwer"])
    parser.add_argument("--speakers", type=int, default=20, help="speakers that are learnt from")
    parser.add_argument("--dev", type=int, default=16, help="clips of these speakers that are left out of learning")
    parser.add_argument("--sampled", type=int, default=160, help="measured clips that are also sampled")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--plain-advantage", action="store_true", help="not divided by the group's deviation")
    parser.add_argument("--label-weight", type=float, default=0.0)
    parser.add_argument("--wer", type=float, default=1.0)
    parser.add_argument("--cer", type=float, default=0.0)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
