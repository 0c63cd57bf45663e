"""How much memory a model takes, for inference and for training, by precision.

Inference: ``1.2 x parameters x bytes + 0.75 GiB``. Factor and constant were fitted to the eight figures that
Omnilingual ASR publishes for 0.3 to 7.8 B parameters (bf16, batch 1, 30 s, A100); they are met within 15 %, the
smallest within 0.6 GiB (`tests/models/test_catalogue.py`).

Training: states + activations + 0.75 GiB. States, bytes a parameter, of float32 master weights with AdamW: 4 for the
weight, 4 for its gradient, 8 for its two moments (2 with `optimiser.kind=adamw_8bit`). With an adapter the base costs
what it is stored in (4, or 1 at 8 bits, 0.5625 in NF4 with its block constants), and only the adapter has gradient
and moments. Activations of a Transformer layer at 16 bits: ``34 x positions x width`` bytes, twice that in float32
(Korthikanti et al. 2022, arXiv 2205.05198, without the quadratic term, which fused attention does not keep); with
gradient checkpointing 2 x positions x width a layer and one whole layer. Logits: 4 bytes x vocabulary x tokens, three
times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 2**30
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "4bit": 0.5625}
"""Bytes of a stored weight; 4bit is NF4 with one float32 constant for 64 weights (Dettmers et al. 2023)."""

WORKING_FACTOR, FIXED_GIB = 1.2, 0.75
LORA_SHARE = 0.02
"""Share of the parameters that a rank-32 adapter on attention and mlp has, where the model is not at hand to count."""

Arithmetic = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of Transformer layers: how many, how wide, and its positions for a second of audio or a token of text.

    ``per_second`` is positions a second (an encoder), ``per_token`` positions a token (a decoder).
    """

    name: str
    layers: int
    width: int
    per_second: float = 0.0
    per_token: float = 0.0

    def positions(self, seconds: float, tokens: int) -> float:
        """Positions of one clip."""
        return self.per_second * seconds + self.per_token * tokens


@dataclass(frozen=True, slots=True)
class Shape:
    """What the activations depend on; ``vocabulary`` is 0 where the logits are not counted."""

    stacks: tuple[Stack, ...]
    vocabulary: int = 0
    logits_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch an estimate is for."""

    clips: int = 8
    seconds: float = 10.0
    tokens: int = 64


def inference_gib(parameters: float, precision: str) -> float:
    """Memory of decoding one clip of 30 s, GiB."""
    return WORKING_FACTOR * parameters * BYTES[precision] / GIB + FIXED_GIB


def activations_gib(shape: Shape, batch: Batch, arithmetic: Arithmetic, checkpointing: bool = False) -> float:
    """What backpropagation keeps of a batch, GiB."""
    scale = 2.0 if arithmetic == "float32" else 1.0
    total = 0.0
    for stack in shape.stacks:
        one = stack.positions(batch.seconds, batch.tokens) * stack.width * scale
        total += one * (2 * stack.layers + 34) if checkpointing else one * 34 * stack.layers
    logits = shape.logits_per_second * batch.seconds or batch.tokens
    total += 3 * 4 * shape.vocabulary * logits
    return batch.clips * total / GIB


def states_gib(
    parameters: float, trained: float, stored: str = "float32", moments_bytes: float = 8.0, adapter: bool = False
) -> float:
    """Weights, gradients and optimiser moments, GiB.

    Args:
        parameters: of the model.
        trained: how many of them are trained, or how many the adapter has.
        stored: how the model's weights are kept.
        moments_bytes: of the optimiser for each trained parameter (AdamW 8, its 8-bit form 2).
        adapter: the trained parameters come on top of the model's.
    """
    weights = parameters * BYTES[stored] + (4 * trained if adapter else 0)
    return (weights + trained * (4 + moments_bytes)) / GIB


@dataclass(frozen=True, slots=True)
class Need:
    """One way of training and the memory it takes, GiB; ``recipe`` is what a recipe says for it."""

    way: str
    gib: float
    recipe: str


def training_needs(
    parameters: float, adapter_parameters: float | None = None, shape: Shape | None = None, batch: Batch | None = None
) -> list[Need]:
    """The ways of training, the one with the most memory first.

    Without a ``shape`` the activations are taken as 1 GiB, and ways that differ in them alone are left out.
    """
    batch = batch or Batch()
    adapter = LORA_SHARE * parameters if adapter_parameters is None else adapter_parameters

    def need(way: str, states: float, recipe: str, arithmetic: Arithmetic, checkpointing: bool = False) -> Need:
        kept = 1.0 if shape is None else activations_gib(shape, batch, arithmetic, checkpointing)
        return Need(way, states + kept + FIXED_GIB, recipe)

    full = states_gib(parameters, parameters)
    small = states_gib(parameters, parameters, moments_bytes=2.0)
    lora = {bits: states_gib(parameters, adapter, bits, adapter=True) for bits in ("float32", "int8", "4bit")}
    checkpointed = "training.gradient_checkpointing=true"
    needs = [
        need("full, float32", full, "training.precision=fp32", "float32"),
        need("full, bf16 arithmetic", full, "training.precision=bf16", "bfloat16"),
        need("full, bf16, checkpointing", full, checkpointed, "bfloat16", True),
        need("full, bf16, 8-bit AdamW", small, "training.optimiser.kind=adamw_8bit", "bfloat16"),
        need("LoRA, bf16", lora["float32"], "adapter.kind=lora", "bfloat16"),
        need("LoRA, bf16, checkpointing", lora["float32"], f"adapter.kind=lora {checkpointed}", "bfloat16", True),
        need("LoRA, base at 8 bits", lora["int8"], "adapter.kind=lora adapter.bits=8", "bfloat16"),
        need("LoRA, base at 4 bits", lora["4bit"], "adapter.kind=lora adapter.bits=4", "bfloat16"),
    ]
    if shape is None:
        needs = [one for one in needs if "checkpointing" not in one.way and one.way != "full, float32"]
    return sorted(needs, key=lambda one: -one.gib)
