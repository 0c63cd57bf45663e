"""One model from the checkpoints and running averages of a run: means of weights that compete on dev WER."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechtune.core.errors import SpeechtuneError
from speechtune.core.files import write_json
from speechtune.core.progress import note

if TYPE_CHECKING:
    from speechtune.training.config import TrainingConfig
    from speechtune.training.trainer import SpeechTrainer

AVERAGE = "average.json"
"""What was compared at the end of a run, and what became the model."""

WER_FLOOR = 1e-3
"""Added to an error rate before it is inverted, so that one of zero does not take all the weight."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that may become the model: checkpoints with weights that sum to 1, or a running average's file."""

    name: str
    steps: tuple[int, ...]
    weights: tuple[float, ...]
    file: str | None = None


def evaluated_steps(log_history: Sequence[dict[str, float]], last: int) -> list[int]:
    """The steps of the ``last`` latest evaluations, in order."""
    steps = [int(row["step"]) for row in log_history if "eval_wer" in row]
    return steps[-last:]


def best_steps(log_history: Sequence[dict[str, float]], best: int) -> list[int]:
    """The steps of the ``best`` evaluations with the lowest dev WER (the earliest of equals), in order of time."""
    ranked = sorted((row["eval_wer"], int(row["step"])) for row in log_history if "eval_wer" in row)
    return sorted(step for _, step in ranked[:best])


def inverse_weights(values: Sequence[float]) -> tuple[float, ...]:
    """Weights proportional to ``1 / (value + WER_FLOOR)``, summing to 1: the lower, the heavier."""
    shares = [1 / (value + WER_FLOOR) for value in values]
    return tuple(share / sum(shares) for share in shares)


def uniform_weights(count: int) -> tuple[float, ...]:
    """``count`` equal weights."""
    return (1 / count,) * count


def candidates(log_history: Sequence[dict[str, float]], config: TrainingConfig, newest: Path | None) -> list[Candidate]:
    """The averages a recipe asks for that differ from a single checkpoint.

    Args:
        log_history: the Trainer's log, which names every evaluation.
        config: the recipe's ``training``.
        newest: the newest checkpoint, which holds the running averages.

    Raises:
        SpeechtuneError: weights by dev loss are wanted and no dev loss was measured.
    """
    wanted = config.averages
    found: dict[tuple[Any, ...], Candidate] = {}

    def add(name: str, steps: Sequence[int], weights: Sequence[float]) -> None:
        if len(steps) > 1:
            found.setdefault((*steps, *weights), Candidate(name, tuple(steps), tuple(weights)))

    last, best = evaluated_steps(log_history, config.average_last), best_steps(log_history, wanted.best)
    add(f"last {len(last)}", last, uniform_weights(len(last)))
    add(f"best {len(best)}", best, uniform_weights(len(best)))
    if wanted.weigh_by != "none" and len(best) > 1:
        key = f"eval_{wanted.weigh_by}"
        values = {int(row["step"]): row[key] for row in log_history if key in row}
        if not set(best) <= set(values):
            raise SpeechtuneError(
                "training.averages.weigh_by=loss needs the dev loss of every evaluation: set "
                "training.monitor.dev_loss=true"
            )
        add(f"best {len(best)} weighted by dev {wanted.weigh_by}", best, inverse_weights([values[s] for s in best]))
    everything = list(found.values())
    for name, asked in (("ema", wanted.ema_decay), ("swa", wanted.swa_from)):
        file = f"{name}.safetensors"
        if asked is not None and newest is not None and (newest / file).is_file():
            everything.append(Candidate(name, (), (), file))
    return everything


def average_weights(
    model: torch.nn.Module, steps: Sequence[int], load: Callable[[int], None], weights: Sequence[float] | None = None
) -> dict[str, torch.Tensor]:
    """The (weighted) mean of the trainable weights over checkpoints; what is frozen is the same in all of them.

    Uniform averaging of one run's late weights, as in "Attention is all you need" (Vaswani et al. 2017, section 6.1)
    and in the weight soups of Wortsman et al. 2022 (arXiv 2203.05482). Sums are float64, so that the order of the
    checkpoints does not matter beyond the last bit; the result has each weight's own dtype.

    Args:
        model: where ``load`` puts a checkpoint; it holds the last one afterwards.
        steps: the checkpoints' steps, at least one.
        load: reads the checkpoint of a step into ``model``.
        weights: one a step, summing to 1; equal ones when not given.
    """
    sums: dict[str, torch.Tensor] = {}
    uniform = weights is None or len(set(weights)) == 1
    for place, step in enumerate(steps):
        load(step)
        share = 1.0 if uniform or weights is None else weights[place]
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                value = parameter.detach().double() * share
                sums[name] = sums[name] + value if name in sums else value
    own = dict(model.named_parameters())
    return {name: (total / (len(steps) if uniform else 1)).to(own[name].dtype) for name, total in sums.items()}


@torch.no_grad()
def set_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy named weights into a model; the others stay as they are."""
    own = dict(model.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)


def keep_the_best(trainer: SpeechTrainer, model: torch.nn.Module, directory: Path, config: TrainingConfig) -> None:
    """Put into ``model`` whichever has the lowest dev WER: the best single checkpoint or one of the averages.

    An average wins a tie. What was compared is written to ``directory/average.json``: every candidate with its steps,
    weights and dev metrics; ``steps`` and ``wer`` of the best average, and whether it was ``chosen``.

    Raises:
        SpeechtuneError: nothing was evaluated, so there is no best.
    """
    from safetensors.torch import load_file

    from speechtune.training.trainer import best_step, newest_complete

    history, checkpoints = trainer.state.log_history, Path(trainer.args.output_dir)
    best = best_step(history)
    if best is None:
        raise SpeechtuneError(f"{directory}: no checkpoint was evaluated, so there is no best one: see monitor.jsonl")

    def load(step: int) -> None:
        trainer._load_from_checkpoint(str(checkpoints / f"checkpoint-{step}"), model)

    newest = newest_complete(checkpoints)

    def put(candidate: Candidate) -> None:
        if candidate.file is None:
            set_weights(model, average_weights(model, candidate.steps, load, candidate.weights))
        else:
            assert newest is not None
            load(best)
            set_weights(model, load_file(newest / candidate.file))

    rivals = candidates(history, config, newest)
    lowest = min(row["eval_wer"] for row in history if "eval_wer" in row)
    if not rivals:
        load(best)
        return
    rows: list[dict[str, Any]] = []
    for rival in rivals:
        put(rival)
        metrics = trainer.evaluate_weights()
        rows.append({**asdict(rival), **metrics})
        note(f"average {rival.name}: dev WER {100 * metrics['wer']:.1f} % (best single one {100 * lowest:.1f} %)")
    first = min(range(len(rows)), key=lambda place: rows[place]["wer"])
    chosen = rows[first]["wer"] <= lowest
    note(f"keeping {'the average ' + rivals[first].name if chosen else f'the single checkpoint of step {best}'}")
    single = {"name": "single", "steps": [best], "weights": [1.0], "file": None, "wer": lowest}
    summary = {"chosen": chosen, "winner": rivals[first].name if chosen else "single", "best_single_wer": lowest}
    facts = {name: value for name, value in rows[first].items() if name not in ("name", "file", "weights")}
    write_json(directory / AVERAGE, {**summary, **facts, "candidates": [single, *rows]})
    if not chosen:
        load(best)
    elif first != len(rivals) - 1:
        put(rivals[first])
