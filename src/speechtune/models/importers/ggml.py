"""Reading whisper.cpp's GGML model file: eleven sizes, mel filters, vocabulary, tensors.

The layout (little-endian) is the one that ``whisper_model_load`` of whisper.cpp 1.8 reads and its
``models/convert-pt-to-ggml.py`` writes::

    u32 magic 0x67676d6c | 11 x i32 sizes (see SIZES)
    i32 mels | i32 bins | mels x bins float32
    i32 count | count x ( u32 bytes | the token's bytes )
    until the end: i32 rank | i32 name bytes | i32 type | rank x i32 dim, last one first | name | data
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError, missing_extra
from speechtune.models.importers.cursor import Cursor

MAGIC = 0x67676D6C
SIZES = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
    "ftype",
)
FFT_BINS = 201  # 1 + 400 / 2
TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0"}
"""``ggml_type`` of a tensor."""
BLOCK = 32
BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}
"""Bytes of a block of 32 weights (ggml-common.h)."""
_LARGEST_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class GgmlFile:
    """Everything the file holds; arrays of block types are widened to float32. ``kinds``: the stored type of each."""

    sizes: dict[str, int]
    filters: np.ndarray
    vocabulary: list[bytes]
    arrays: dict[str, np.ndarray]
    kinds: dict[str, str]


def is_ggml(path: Path) -> bool:
    """Whether a file begins as whisper.cpp's model files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == struct.pack("<I", MAGIC)


def read_ggml(path: Path) -> GgmlFile:
    """Read the file strictly: every byte is accounted for.

    Raises:
        InputError: it is not of this format, truncated, or holds a type that is not known here.
    """
    if not is_ggml(path):
        raise InputError(f"{path} is not a whisper.cpp model (it does not begin with 'ggml'): check the path")
    cursor = _Cursor(path, "whisper.cpp model")
    cursor.take(4)
    sizes = dict(zip(SIZES, cursor.integers(len(SIZES)), strict=True))
    if not all(0 <= value < _LARGEST_SIZE for value in sizes.values()):
        raise cursor.broken("its sizes make no sense")
    mels, bins = cursor.integers(2)
    filters = cursor.take(4 * mels * bins).view("<f4").reshape(mels, bins)
    vocabulary = [cursor.take(cursor.integers(1)[0]).tobytes() for _ in range(cursor.integers(1)[0])]
    arrays: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    while not cursor.at_end():
        rank, name_bytes, type_id = cursor.integers(3)
        if not 1 <= rank <= 4 or type_id not in TYPES:
            raise cursor.broken(f"a tensor of rank {rank} has the unknown type {type_id}")
        shape = tuple(reversed(cursor.integers(rank)))
        name = cursor.take(name_bytes).tobytes().decode("utf-8", errors="replace")
        kinds[name] = TYPES[type_id]
        arrays[name] = _array(cursor, shape, TYPES[type_id])
    return GgmlFile(sizes, filters, vocabulary, arrays, kinds)


def _array(cursor: _Cursor, shape: tuple[int, ...], kind: str) -> np.ndarray:
    count = math.prod(shape)
    if kind in ("f32", "f16"):
        dtype = np.dtype("<f4" if kind == "f32" else "<f2")
        return cursor.take(count * dtype.itemsize).view(dtype).reshape(shape)
    if shape[-1] % BLOCK:
        raise cursor.broken(f"a row of {shape[-1]} weights cannot be of type {kind}")
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as error:
        raise missing_extra("gguf", "export") from error
    raw = cursor.take(count // BLOCK * BLOCK_BYTES[kind]).reshape(*shape[:-1], -1)
    return quants.dequantize(np.ascontiguousarray(raw), GGMLQuantizationType[kind.upper()]).reshape(shape)


class _Cursor(Cursor):
    """Rows of numbers as whisper.cpp writes them."""

    def integers(self, count: int) -> list[int]:
        """The next 32-bit numbers."""
        return [int(value) for value in struct.unpack(f"<{count}i", self.take(4 * count).tobytes())]
