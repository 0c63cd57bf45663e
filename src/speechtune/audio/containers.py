"""Whether a WAV or Ogg file ends before its own structure says it should.

libsndfile quietly shortens a WAV to the bytes that are there, and an Ogg stream to its last whole page; both would pass
for complete recordings. FLAC, MP3 and MP4 are not treated here: their headers state a length that decoding is held to.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

# Writers that cannot seek back put a placeholder in the size field: FFmpeg 0xFFFFFFFF, SoX 0x7FFFF000 and its like.
_STREAMED_SIZE = 0x7FFF_0000
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # RFC 3533, section 6


def promised_bytes_missing(path: Path) -> int:
    """How many bytes the last structure of a WAV (RIFF) or Ogg file promises beyond the end of the file.

    0 for a complete file, for one whose writer stated no size, and for every other format.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        magic = stream.read(12)
        size = path.stat().st_size
        if magic[:4] == b"RIFF" and magic[8:12] == b"WAVE":
            return _missing_in_wav(stream, size)
        if magic[:4] == b"OggS":
            return _missing_in_ogg(stream, size)
    return 0


def _missing_in_wav(stream: BinaryIO, size: int) -> int:
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            if length >= _STREAMED_SIZE:
                return 0
            return max(0, position + 8 + length - size)
        position += 8 + length + length % 2
    return 0


def _missing_in_ogg(stream: BinaryIO, size: int) -> int:
    stream.seek(max(0, size - _MAX_PAGE_BYTES))
    tail = stream.read()
    start = tail.rfind(b"OggS")
    while start >= 0:
        page = tail[start:]
        if len(page) < 27:
            return 27 - len(page)
        if page[4] == 0:  # the stream structure version; anything else is a chance "OggS" inside a packet
            lengths = page[27 : 27 + page[26]]
            return max(0, 27 + page[26] + sum(lengths) - len(page))
        start = tail.rfind(b"OggS", 0, start)
    return 0
