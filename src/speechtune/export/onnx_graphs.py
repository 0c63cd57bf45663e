"""Exporting the pieces of `onnx_modules` and joining two of them into the decoder other programs expect.

``decoder_model_merged`` is Optimum's form (transformers.js, onnx-asr): one graph for the first tokens and for those
after them, chosen by ``use_cache_branch``. Here the choice only fills the caches (an ``If`` in front of one decoder),
so no weight is there twice.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from speechtune.export.onnx_modules import CrossKeys, Encoder, Step

OPSET = 18


def export_encoder(model: Any, mels: int, frames: int) -> Any:
    """The encoder as an ONNX model."""
    length = torch.export.Dim("half_frames", min=2, max=frames // 2)
    return _export(
        Encoder(model.model.encoder),
        (torch.randn(2, mels, 60),),
        {"input_features": {0: _batch(), 2: 2 * length}},
        ["input_features"],
        ["last_hidden_state"],
    )


def export_cross(model: Any) -> Any:
    """The cross-attention keys and values as an ONNX model with outputs ``cross.N.key`` and ``cross.N.value``."""
    layers = len(model.model.decoder.layers)
    hidden = torch.randn(2, 30, model.config.d_model)
    return _export(
        CrossKeys(model.model.decoder),
        (hidden,),
        {"encoder_hidden_states": {0: _batch(), 1: torch.export.Dim("positions", min=2, max=1500)}},
        ["encoder_hidden_states"],
        cache_names("cross", layers),
    )


def export_step(model: Any, tied: bool) -> Any:
    """One decoder pass: ``input_ids``, ``past.N.*``, ``cross.N.*`` to ``logits``, ``present.N.decoder.*``."""
    decoder, config = model.model.decoder, model.config
    layers, heads = len(decoder.layers), int(config.decoder_attention_heads)
    width = int(config.d_model) // heads
    past = [torch.randn(2, heads, 5, width) for _ in range(2 * layers)]
    cross = [torch.randn(2, heads, 30, width) for _ in range(2 * layers)]
    longest = int(config.max_target_positions)
    known = torch.export.Dim("past_tokens", min=2, max=longest)
    positions = torch.export.Dim("positions", min=2, max=1500)
    batch = _batch()
    return _export(
        Step(decoder, model.proj_out.weight, tied),
        (torch.ones(2, 3, dtype=torch.long), past, cross),
        {
            "input_ids": {0: batch, 1: torch.export.Dim("tokens", min=2, max=longest)},
            "past": [{0: batch, 2: known} for _ in past],
            "cross": [{0: batch, 2: positions} for _ in cross],
        },
        ["input_ids", *cache_names("past", layers), *cache_names("cross", layers)],
        ["logits", *cache_names("present", layers, ".decoder")],
    )


def cache_names(kind: str, layers: int, side: str = "") -> list[str]:
    """``kind.0.key``, ``kind.0.value``, ``kind.1.key``, …."""
    return [f"{kind}.{number}{side}.{part}" for number in range(layers) for part in ("key", "value")]


def _batch() -> Any:
    return torch.export.Dim("batch", min=2, max=1024)


def _export(module: torch.nn.Module, args: Any, shapes: Any, inputs: list[str], outputs: list[str]) -> Any:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        silence = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                args,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto


def merge_decoder(step: Any, cross: Any, heads: int, width: int, layers: int) -> Any:
    """One graph of `export_step` and `export_cross`: Optimum's ``decoder_model_merged`` by inputs and outputs.

    Args:
        step, cross: the two ONNX models, quantised or not.
        heads, width: of the decoder's attention; ``width`` is one head's.
        layers: decoder layers.
    """
    import onnx
    from onnx import TensorProto, helper

    onnx.compose.add_prefix(cross, "cross_", inplace=True, rename_inputs=False, rename_outputs=False)
    own, other = step.graph, cross.graph
    chosen = [*cache_names("past", layers), *cache_names("cross", layers)]
    given = [
        *cache_names("past_key_values", layers, ".decoder"),
        *cache_names("past_key_values", layers, ".encoder"),
    ]
    cached = helper.make_graph(
        [
            helper.make_node("Identity", [theirs], [f"cached.{ours}"])
            for ours, theirs in zip(chosen, given, strict=True)
        ],
        "with_cache",
        [],
        [helper.make_empty_tensor_value_info(f"cached.{name}") for name in chosen],
    )
    constants = {"first.zero": [0], "first.one": [1], "first.rest": [heads, 0, width]}
    nodes = [
        helper.make_node("Shape", ["encoder_hidden_states"], ["first.shape"]),
        helper.make_node("Slice", ["first.shape", "first.zero", "first.one"], ["first.batch"]),
        helper.make_node("Concat", ["first.batch", "first.rest"], ["first.empty"], axis=0),
        *(
            helper.make_node("ConstantOfShape", ["first.empty"], [f"first.{name}"])
            for name in cache_names("past", layers)
        ),
        *other.node,
        *(helper.make_node("Identity", [name], [f"first.{name}"]) for name in cache_names("cross", layers)),
    ]
    first = helper.make_graph(
        nodes, "without_cache", [], [helper.make_empty_tensor_value_info(f"first.{name}") for name in chosen]
    )
    choice = helper.make_node("If", ["use_cache_branch"], chosen, then_branch=cached, else_branch=first)

    def cache(names: list[str], length: str) -> list[Any]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", heads, length, width]) for n in names]

    passed_on = cache_names("present", layers, ".encoder")
    inputs = [
        next(one for one in own.input if one.name == "input_ids"),
        other.input[0],
        *cache(given[: 2 * layers], "past_tokens"),
        *cache(given[2 * layers :], "positions"),
        helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]),
    ]
    outputs = [*own.output, *cache(passed_on, "positions")]
    tail = [
        helper.make_node("Identity", [name], [out])
        for name, out in zip(cache_names("cross", layers), passed_on, strict=True)
    ]
    integers = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in constants.items()]
    graph = helper.make_graph(
        [choice, *own.node, *tail], "decoder", inputs, outputs, [*own.initializer, *other.initializer, *integers]
    )
    opsets = {one.domain: one.version for model in (step, cross) for one in model.opset_import}
    merged = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()])
    known = {function.name for function in step.functions}
    merged.functions.extend([*step.functions, *(one for one in cross.functions if one.name not in known)])
    merged.ir_version = min(step.ir_version, cross.ir_version)
    return merged


def quantise(model: Any, scratch: Path) -> Any:
    """Weights of matrix products and embeddings in 8 bits, activations at run time (ONNX Runtime's dynamic scheme)."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    scratch.mkdir(parents=True, exist_ok=True)
    before, after = scratch / "float.onnx", scratch / "int8.onnx"
    del model.graph.value_info[:]  # the quantiser infers shapes anew and stumbles over the exporter's
    onnx.save_model(model, before)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.level
        logging.root.setLevel(logging.ERROR)
        try:
            quantize_dynamic(
                before, after, op_types_to_quantize=["MatMul", "Gather"], per_channel=True, weight_type=QuantType.QInt8
            )
        finally:
            logging.root.setLevel(previous)
    found = onnx.load_model(after)
    before.unlink()
    after.unlink()
    return found
