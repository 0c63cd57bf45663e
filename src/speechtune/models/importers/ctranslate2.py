"""Reading CTranslate2's ``model.bin``: named arrays, scalars and aliases.

The layout (little-endian) is the one ``ctranslate2/specs/model_spec.py`` writes (``ModelSpec._serialize``, binary
version 6)::

    u32 version | string spec name | u32 spec revision
    u32 count   | count x ( string name | u8 rank | rank x u32 dim | u8 dtype id | u32 bytes | the bytes )
    u32 count   | count x ( string alias | string name )
    string      = u16 length including the final zero | bytes | zero
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError
from speechtune.models.importers.cursor import Cursor

BINARY_VERSION = 6
DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
ITEM_BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Ctranslate2File:
    """Everything ``model.bin`` holds.

    ``arrays`` has one entry for every variable *and* every alias (aliases share memory with their target); bfloat16
    arrays are widened to float32, which is exact. ``dtypes`` gives the stored type of each variable (aliases left out).
    """

    version: int
    spec: str
    revision: int
    arrays: dict[str, np.ndarray]
    dtypes: dict[str, str]
    aliases: dict[str, str]

    def scalar(self, name: str, default: int) -> int:
        """An integer setting such as ``decoder/num_heads``; ``default`` where the file does not have it."""
        return int(self.arrays[name]) if name in self.arrays else default


def read_ctranslate2(path: Path) -> Ctranslate2File:
    """Read a CTranslate2 ``model.bin`` strictly: every byte is accounted for.

    The arrays are read-only views into a memory map, so a large model costs no memory until it is used.

    Raises:
        InputError: the file is missing, empty, not of this format, of another binary version, truncated, or has bytes
            left over.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a directory with a CTranslate2 model.bin")
    if path.stat().st_size < 16:
        raise InputError(f"{path} is not a CTranslate2 model ({path.stat().st_size} bytes): obtain it again")
    cursor = _Cursor(path, "CTranslate2 model")
    version = cursor.number("I")
    if version != BINARY_VERSION:
        raise InputError(
            f"{path} is not a CTranslate2 model of binary version {BINARY_VERSION} (its first number is {version}): "
            "convert the original model again with a current ctranslate2"
        )
    spec, revision = cursor.string(), cursor.number("I")
    arrays: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    for _ in range(cursor.number("I")):
        name = cursor.string()
        if name in arrays:
            raise cursor.broken(f"the variable {name} occurs twice")
        arrays[name], dtypes[name] = cursor.array(name)
    aliases = {}
    for _ in range(cursor.number("I")):
        alias, name = cursor.string(), cursor.string()
        if name not in dtypes or alias in arrays:
            raise cursor.broken(f"the alias {alias} of {name} cannot be resolved")
        aliases[alias] = name
        arrays[alias] = arrays[name]
    cursor.finish()
    return Ctranslate2File(version, spec, revision, arrays, dtypes, aliases)


class _Cursor(Cursor):
    """Strings and arrays as CTranslate2 writes them."""

    def string(self) -> str:
        raw = self.take(self.number("H")).tobytes()
        if not raw.endswith(b"\0"):
            raise self.broken("a name does not end with a zero byte")
        try:
            return raw[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken("a name is not UTF-8 text") from error

    def array(self, name: str) -> tuple[np.ndarray, str]:
        shape = tuple(self.number("I") for _ in range(self.number("B")))
        type_id, size_bytes = self.number("B"), self.number("I")
        if type_id >= len(DTYPES):
            raise self.broken(f"{name} has the unknown type {type_id}")
        dtype = DTYPES[type_id]
        if size_bytes != math.prod(shape) * ITEM_BYTES[dtype]:
            raise self.broken(f"{name} of shape {shape} and type {dtype} cannot have {size_bytes} bytes")
        raw = self.take(size_bytes)
        if dtype == "bfloat16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape), dtype
        return raw.view(np.dtype(dtype).newbyteorder("<")).reshape(shape), dtype
