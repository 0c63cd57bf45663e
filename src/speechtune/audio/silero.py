"""The Silero voice activity detector (16 kHz) in NumPy, with the weights of the ``silero-vad`` package's ONNX file.

The network is small (about 0.7 million multiplications per 32 ms) but ONNX Runtime's convolutions are slow on its
four-frame inputs: written as matrix products over many clips it costs a third of the time and needs neither
onnxruntime nor torch. Silero Team, "Silero VAD", https://github.com/snakers4/silero-vad (MIT licence). A test holds
it against ONNX Runtime on the same file. (The package's ``.safetensors`` file holds other, older weights.)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import SpeechtuneError, missing_extra

FRAME_SAMPLES = 512
"""Samples per probability: 32 ms at 16 kHz."""
_CONTEXT = 64  # samples of the frame before that the network also sees
_REFLECTED = 64
_BINS = 129
_UNITS = 128
_BLOCK = 512
_LANES = 32
# Every matrix product has one of two fixed shapes (_BLOCK frames, _LANES clips), so that a clip's result does not
# depend, not even in its last bit, on the clips that share its batch.

Matrix = npt.NDArray[np.float32]


def probabilities(waveforms: Sequence[Matrix]) -> list[Matrix]:
    """Speech probability of every 512-sample frame (the last one zero-padded) of every 16 kHz ``(samples,)`` array."""
    counts = [-(-len(waveform) // FRAME_SAMPLES) for waveform in waveforms]
    order = sorted(range(len(waveforms)), key=lambda index: -counts[index])
    results: list[Matrix] = [np.zeros(0, np.float32)] * len(waveforms)
    for first in range(0, len(order), _LANES):
        lanes = order[first : first + _LANES]
        pieces: list[list[Matrix]] = [[] for _ in lanes]
        hidden, cell = np.zeros((2, _LANES, _UNITS), np.float32)
        for start in range(0, counts[lanes[0]], _BLOCK):
            lengths = [min(max(counts[index] - start, 0), _BLOCK) for index in lanes]
            inputs = _gate_inputs([waveforms[index] for index in lanes], start, lengths)
            values, hidden, cell = _recur(inputs, hidden, cell)
            for lane, length in enumerate(lengths):
                pieces[lane].append(values[:length, lane])
        for index, parts in zip(lanes, pieces, strict=True):
            results[index] = np.concatenate(parts) if parts else results[index]
    return results


def _gate_inputs(waveforms: Sequence[Matrix], start: int, counts: Sequence[int]) -> list[Matrix]:
    """What the recurrent layer adds to its own state in ``counts`` frames from ``start`` on: (count, 512) each."""
    total = sum(counts)
    padded = np.zeros((-(-total // _BLOCK) * _BLOCK, _CONTEXT + FRAME_SAMPLES + _REFLECTED), np.float32)
    first = 0
    for waveform, count in zip(waveforms, counts, strict=True):
        rows = padded[first : first + count]
        at = start * FRAME_SAMPLES
        frames = np.zeros((count, FRAME_SAMPLES), np.float32)
        span = waveform[at : at + frames.size]
        frames.reshape(-1)[: len(span)] = span
        rows[:, _CONTEXT:-_REFLECTED] = frames
        rows[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        if at and count:
            rows[0, :_CONTEXT] = waveform[at - _CONTEXT : at]
        first += count
    padded[:, -_REFLECTED:] = padded[:, -_REFLECTED - 2 : -2 * _REFLECTED - 2 : -1]
    inputs = np.concatenate([_front(padded[at : at + _BLOCK]) for at in range(0, len(padded), _BLOCK)])
    return np.split(inputs[:total], np.cumsum(counts)[:-1])


def _front(padded: Matrix) -> Matrix:
    """Spectrum and four convolutions of ``(_BLOCK, 640)`` frames, times the recurrent layer's input weights."""
    weights = _weights()
    windows = np.lib.stride_tricks.sliding_window_view(padded, 256, axis=1)[:, ::128]  # (frames, 4, 256)
    spectrum = windows.reshape(-1, 256) @ weights["stft"]
    power = np.square(spectrum[:, :_BINS])
    power += np.square(spectrum[:, _BINS:])
    magnitude = np.zeros((_BLOCK, 6, _BINS), np.float32)  # one frame of zeros at either end
    magnitude[:, 1:5] = np.sqrt(power).reshape(_BLOCK, 4, _BINS)
    hidden = np.zeros((_BLOCK, 6, 128), np.float32)
    hidden[:, 1:5] = _conv(magnitude, 4, 1, "1").reshape(_BLOCK, 4, 128)
    pair = _conv(hidden, 2, 2, "2").reshape(_BLOCK, 128)  # two frames of 64
    single = _dense(_dense(pair, "3"), "4")
    return single @ weights["gates"] + weights["gates.bias"]


def _conv(padded: Matrix, frames: int, stride: int, layer: str) -> Matrix:
    """A width-3 convolution with ReLU of ``(_BLOCK, 6, channels)`` as one matrix product over its windows."""
    channels = padded.shape[2]
    flat = padded.reshape(_BLOCK, -1)
    windows = np.lib.stride_tricks.sliding_window_view(flat, 3 * channels, axis=1)[:, :: stride * channels]
    return _dense(windows[:, :frames].reshape(-1, 3 * channels), layer)


def _dense(rows: Matrix, layer: str) -> Matrix:
    weights = _weights()
    result = rows @ weights[layer]
    result += weights[layer + ".bias"]
    return np.maximum(result, 0.0, out=result)


def _recur(inputs: Sequence[Matrix], hidden: Matrix, cell: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The LSTM and the output layer over up to ``_LANES`` clips at once, longest first.

    Returns probabilities of shape (frames, _LANES) and the state after the last frame.
    """
    weights = _weights()
    steps = len(inputs[0])
    gates = np.zeros((steps, _LANES, 4 * _UNITS), np.float32)
    for lane, values in enumerate(inputs):
        gates[: len(values), lane] = values
    states = np.empty((steps + 1, _LANES, _UNITS), np.float32)
    states[0] = hidden
    for step in range(steps):
        gate = gates[step]
        gate += states[step] @ weights["recurrent"]
        # The sigmoid of x is 0.5 + 0.5 tanh(x / 2); the halves are in the weights of gates i, o and f.
        np.tanh(gate, out=gate)
        opened = gate[:, : 3 * _UNITS]
        opened *= 0.5
        opened += 0.5
        cell *= opened[:, 2 * _UNITS :]
        cell += opened[:, :_UNITS] * gate[:, 3 * _UNITS :]
        np.multiply(opened[:, _UNITS : 2 * _UNITS], np.tanh(cell), out=states[step + 1])
    logits = (np.maximum(states[1:], 0.0) * weights["output"]).sum(axis=2) + weights["output.bias"]
    return 0.5 + 0.5 * np.tanh(0.5 * logits), states[-1], cell


@lru_cache(maxsize=1)
def _weights() -> dict[str, Matrix]:
    """The network's weights, laid out for ``rows @ weights`` with the gates in ONNX's order i, o, f, g."""
    arrays, inputs = read_onnx_arrays(_weights_path())
    half = np.repeat(np.array([0.5, 0.5, 0.5, 1.0], np.float32), _UNITS)
    # Every LSTM and Conv node names its weights as its second input, its bias as the next or (LSTM) the fourth.
    gates, recurrent, gate_bias = (arrays[name][0] for name in inputs["LSTM"][0][1:4])
    stft, *layers = (arrays[names[1]] for names in inputs["Conv"])
    biases = [arrays[names[2]] for names in inputs["Conv"][1:]]
    first_taps = (0, 0, 1, 1)  # the third and fourth layer's other taps only ever see padding
    last_taps = (3, 3, 3, 2)
    result = {
        "stft": np.ascontiguousarray(stft[:, 0].T),
        "gates": np.ascontiguousarray(gates.T) * half,
        "gates.bias": (gate_bias[: 4 * _UNITS] + gate_bias[4 * _UNITS :]) * half,
        "recurrent": np.ascontiguousarray(recurrent.T) * half,
        "output": layers[4].reshape(-1),
        "output.bias": biases[4],
    }
    for number in range(4):
        kernel = layers[number][:, :, first_taps[number] : last_taps[number]]  # (out, in, taps)
        result[str(number + 1)] = np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))
        result[f"{number + 1}.bias"] = biases[number]
    return result


def _weights_path() -> Path:
    """Where the package keeps its 16 kHz graph; the package itself is not imported, because it imports torch."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise missing_extra("silero-vad", "audit")
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    if not path.is_file():
        raise SpeechtuneError(f"the installed silero-vad has no {path.name}: run pip install 'silero-vad>=6.2.3,<7'")
    return path


def read_onnx_arrays(path: Path) -> tuple[dict[str, Matrix], dict[str, list[list[str]]]]:
    """The float32 initialisers of an ONNX file by name, and the input names of its nodes by operator, in order.

    ONNX is a protocol buffer; the field numbers are those of ``onnx.proto3`` (Model 7 graph; Graph 1 node,
    5 initializer; Node 1 input, 4 op_type; Tensor 1 dims, 2 data_type, 8 name, 9 raw_data).
    """
    graph = next(value for field, value in _fields(path.read_bytes()) if field == 7)
    arrays: dict[str, Matrix] = {}
    inputs: dict[str, list[list[str]]] = {}
    for field, message in _fields(graph):
        if field == 1:
            node = list(_fields(message))
            operator = next(value for number, value in node if number == 4).decode()
            inputs.setdefault(operator, []).append([value.decode() for number, value in node if number == 1])
        elif field == 5:
            shape = [value for number, value in _fields(message) if number == 1]
            values = {number: value for number, value in _fields(message) if number != 1}
            if values[2] == 1:  # float32
                arrays[values[8].decode()] = np.frombuffer(values[9], "<f4").reshape(shape).astype(np.float32)
    return arrays, inputs


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The (number, value) pairs of a protocol buffer message: integers, or bytes for whatever has a length."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
        yield key >> 3, message[at : at + size]
        at += size
