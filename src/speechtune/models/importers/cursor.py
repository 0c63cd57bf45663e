"""Reading a binary model file from its start to its end."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from speechtune.core.errors import InputError


class Cursor:
    """Consumes a memory-mapped file from its start; a read beyond the end is a truncated file.

    ``kind`` says in messages what the file should be, as in ``a CTranslate2 model``.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.offset = 0

    def broken(self, reason: str) -> InputError:
        """The error for a malformed file."""
        return InputError(
            f"{self.path} is not an intact {self.kind} (at byte {self.offset} of {self.data.size}: {reason}): "
            "obtain it again"
        )

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.offset == self.data.size

    def take(self, size_bytes: int) -> np.ndarray:
        """The next bytes.

        Raises:
            InputError: the file ends before.
        """
        if size_bytes < 0 or self.offset + size_bytes > self.data.size:
            raise self.broken(f"it ends where {size_bytes} more bytes should follow")
        part = self.data[self.offset : self.offset + size_bytes]
        self.offset += size_bytes
        return part

    def number(self, code: str) -> int:
        """The next little-endian number of a `struct` code."""
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)).tobytes())[0])

    def finish(self) -> None:
        """Nothing may be left.

        Raises:
            InputError: something is.
        """
        if not self.at_end():
            raise self.broken(f"{self.data.size - self.offset} bytes are left over")
