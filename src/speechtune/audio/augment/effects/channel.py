"""The way of the sound: microphones and telephones, and codecs that lose something."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Effect, Parameters, Range, Samples, uniform
from speechtune.audio.augment.effects.level import same_speech_level
from speechtune.audio.augment.materials import Materials
from speechtune.audio.io import SAMPLE_RATE_HZ, resample

CodecName = Literal["mp3", "opus", "vorbis", "ulaw", "alaw", "gsm"]
_FORMATS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
    "ulaw": ("WAV", "ULAW"),
    "alaw": ("WAV", "ALAW"),
    "gsm": ("WAV", "GSM610"),
}
_LOSSY = ("mp3", "opus", "vorbis")
_TELEPHONE_HZ = 8_000
_GUARD_SAMPLES = 4_000
_BLOCK_SAMPLES = 16_000
_STRONGEST = 0.99  # libsndfile 1.2 refuses 1.0 for MP3


class BandLimit(Effect):
    """Bass and treble roll off as in a small microphone or a telephone; the speech level is kept.

    The magnitude is that of Butterworth filters, the phase is zero: nothing moves in time.
    """

    kind: Literal["band_limit"] = "band_limit"
    low_hz: Range = Field((80.0, 300.0), description="Where the bass is 3 dB down.")
    high_hz: Range = Field((3_400.0, 7_000.0), description="Where the treble is 3 dB down.")
    order: int = Field(2, ge=1, le=12, description="Steepness of both slopes: 6 dB an octave each.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``low_hz``, ``high_hz``, ``order``."""
        return {"low_hz": uniform(rng, self.low_hz, 0), "high_hz": uniform(rng, self.high_hz, 0), "order": self.order}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Multiply the spectrum."""
        filtered = band_limit(waveform, parameters["low_hz"], parameters["high_hz"], parameters["order"])
        return same_speech_level(waveform, filtered)


class Codec(Effect):
    """Encode and decode in memory with libsndfile; delay undone, length kept.

    ``ulaw``, ``alaw`` and ``gsm`` are telephone codecs: the clip passes at 8 kHz between 300 and 3400 Hz (ITU-T G.711,
    GSM 06.10). The others keep 16 kHz.
    """

    kind: Literal["codec"] = "codec"
    codecs: tuple[CodecName, ...] = Field(
        ("mp3", "opus", "vorbis"), min_length=1, description="Codecs to draw from: mp3, opus, vorbis, ulaw, alaw, gsm."
    )
    compression: Range = Field(
        (0.8, 0.98),
        description="For mp3, opus and vorbis: libsndfile's compression level, 0 (best) to 0.99 (smallest).",
    )

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``codec``, and ``compression`` where it has one."""
        codec = self.codecs[int(rng.integers(len(self.codecs)))]
        level = min(max(uniform(rng, self.compression, 2), 0.0), _STRONGEST)
        return {"codec": codec, "compression": level} if codec in _LOSSY else {"codec": codec}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """There and back."""
        codec = parameters["codec"]
        if codec in _LOSSY:
            return round_trip(waveform, codec, parameters["compression"], SAMPLE_RATE_HZ)
        narrow = resample(band_limit(waveform, 300.0, 3_400.0, 8), SAMPLE_RATE_HZ, _TELEPHONE_HZ)
        wide = resample(round_trip(narrow, codec, None, _TELEPHONE_HZ), _TELEPHONE_HZ, SAMPLE_RATE_HZ)
        return np.resize(np.pad(wide, (0, max(0, len(waveform) - len(wide)))), len(waveform))


def band_limit(waveform: Samples, low_hz: float, high_hz: float, order: int) -> Samples:
    """Zero-phase filter with Butterworth magnitudes, 3 dB down at both frequencies; same shape."""
    size = fft_size(len(waveform) + SAMPLE_RATE_HZ // 10)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    with np.errstate(divide="ignore"):
        low = 1 / np.sqrt(1 + (low_hz / hz) ** (2 * order)) if low_hz > 0 else np.ones(len(hz))
    high = 1 / np.sqrt(1 + (hz / high_hz) ** (2 * order))
    return np.fft.irfft(np.fft.rfft(waveform, size) * low * high, size)[: len(waveform)].astype(np.float32)


def fft_size(samples: int) -> int:
    """The smallest product of 2, 3 and 5 that is not below ``samples``."""
    best = 1 << max(samples - 1, 1).bit_length()
    for fives in range(12):
        for threes in range(20):
            odd = 5**fives * 3**threes
            if odd >= best:
                break
            best = min(best, odd << max(0, (-(-samples // odd) - 1).bit_length()))
    return best


def round_trip(waveform: Samples, codec: str, compression: float | None, rate_hz: int) -> Samples:
    """Encoded and decoded: same shape, and in step with what went in."""
    delay = _delay_samples(codec, compression, rate_hz)
    decoded = _through(np.pad(waveform, (0, _GUARD_SAMPLES)), codec, compression, rate_hz)[delay:]
    return np.pad(decoded, (0, max(0, len(waveform) - len(decoded))))[: len(waveform)].astype(np.float32)


@lru_cache(maxsize=256)
def _delay_samples(codec: str, compression: float | None, rate_hz: int) -> int:
    """How late a codec is, from the correlation of noise with itself: MP3 without a header that says so is 1105."""
    rng = np.random.default_rng(0)
    probe = np.zeros(rate_hz, np.float32)
    probe[rate_hz // 4 : rate_hz // 2] = 0.1 * np.convolve(rng.standard_normal(rate_hz // 4), np.ones(6) / 6, "same")
    heard = _through(probe, codec, compression, rate_hz)
    size = fft_size(len(probe) + len(heard))
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(probe, size)), size)
    return int(np.argmax(correlation[: rate_hz // 4]))


def _through(waveform: Samples, codec: str, compression: float | None, rate_hz: int) -> npt.NDArray[np.float32]:
    import soundfile

    container, subtype = _FORMATS[codec]
    options = {} if compression is None else {"compression_level": compression}
    if codec == "mp3":
        options["bitrate_mode"] = "CONSTANT"  # type: ignore[assignment]
    peak = max(float(np.abs(waveform).max()), 1.0)  # codecs clip at full scale; what is louder goes through softer
    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", rate_hz, 1, subtype, format=container, **options) as file:
        for first in range(0, len(waveform), _BLOCK_SAMPLES):  # one huge write of Ogg overflows libsndfile's stack
            file.write(waveform[first : first + _BLOCK_SAMPLES] / np.float32(peak))
    encoded.seek(0)
    decoded, _ = soundfile.read(encoded, dtype="float32")
    return np.nan_to_num(decoded) * np.float32(peak)
