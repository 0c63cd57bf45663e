"""The page to listen to: complete in itself, before and after of each clip, measurements that are true."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtune.audio.augment import AugmentConfig
from speechtune.audio.io import write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.augmenting import AugmentPlan
from speechtune.corpus.table import Corpus, Utterance
from speechtune.report.augment_preview import write_preview
from speechtune.report.spectrogram import grey_png, spectrogram_png


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        write_audio(tmp_path / f"u{number}.flac", 0.1 * rng.standard_normal(16_000))
        rows.append(
            Utterance(
                utterance_id=f"u{number}",
                file_name=f"u{number}.flac",
                text=f"<b>{number}</b> & more",
                duration_s=1.0,
                speaker_id=f"s{number}",
                split="train",
            )
        )
    return Corpus(tmp_path, rows)


def test_the_page_has_both_sides_and_what_was_measured(corpus: Corpus, tmp_path: Path) -> None:
    config = AugmentConfig(
        effects=[
            {"kind": "noise", "snr_db": [12.0, 12.0], "sources": ["white"]},
            {"kind": "gain", "gain_db": [-20, -20]},
        ]
    )
    result = write_preview(corpus, AugmentPlan(config), tmp_path / "page.html", 4)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (result.examples, result.playable, result.nothing_drawn) == (4, 8, 0)
    assert page.count("measured SNR") == 4
    assert page.count("12.0 dB over the speech") == 4
    assert "<b>1</b>" not in page
    assert "&lt;b&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page
    clips = [
        soundfile.read(io.BytesIO(base64.b64decode(one)))[0]
        for one in re.findall(r"audio/ogg;codecs=opus;base64,([^\"]+)", page)
    ]
    assert len(clips) == 8
    for before, after in zip(clips[::2], clips[1::2], strict=True):
        change_db = 20 * np.log10(np.std(after) / np.std(before))
        assert change_db == pytest.approx(-20 + 10 * np.log10(1 + 10**-1.2), abs=0.5)


def test_a_rare_effect_is_drawn_until_there_is_something_to_hear(corpus: Corpus, tmp_path: Path) -> None:
    rare = AugmentConfig(effects=[{"kind": "gain", "probability": 0.15}])
    assert write_preview(corpus, AugmentPlan(rare), tmp_path / "page.html", 6).examples == 6
    never = AugmentConfig(effects=[{"kind": "gain", "probability": 0.0}])
    result = write_preview(corpus, AugmentPlan(never), tmp_path / "page.html", 6)
    assert (result.examples, result.nothing_drawn) == (0, 6)
    with pytest.raises(InputError, match="no effects to play"):
        write_preview(corpus, AugmentPlan(AugmentConfig()), tmp_path / "page.html")


def test_a_clip_that_cannot_be_read_is_named_on_the_page(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "u2.flac").write_bytes(b"")
    result = write_preview(corpus, AugmentPlan(AugmentConfig(effects=[{"kind": "gain"}])), tmp_path / "page.html", 6)
    assert result.examples == 5
    assert "u2.flac has zero bytes" in (tmp_path / "page.html").read_text()


def test_a_tone_is_a_dark_line_at_its_height() -> None:
    tone = np.sin(2 * np.pi * 2_000 * np.arange(16_000) / 16_000).astype(np.float32)
    pixels = decode_png(spectrogram_png(tone))
    assert pixels.shape == (201, 100)
    assert np.argmin(pixels[:, 50]) == 200 - 50  # 40 Hz a row, 0 Hz at the bottom
    assert decode_png(spectrogram_png(np.zeros(16_000 * 600, np.float32))).shape[1] <= 480


def test_a_png_holds_the_pixels_it_was_given() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)
    assert np.array_equal(decode_png(grey_png(pixels)), pixels)


def decode_png(data: bytes) -> np.ndarray:
    """By the PNG specification, for filter 0 only; checks every CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    columns, rows = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, columns + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]
