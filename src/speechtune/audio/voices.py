"""Two heuristics on what is heard besides one voice: music, and a second speaker. Neither is a verdict; both point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.audio.spectrum import Power

_ACTIVATION_DB = 3.0
_PEAK_BINS = 9
_MUSIC_BINS = slice(13, 257)  # 200 Hz to 4 kHz
_MUSIC_BLOCK_FRAMES = 63  # 2 s
_MUSIC_TOP = 5
_MUSIC_LOW, _MUSIC_HIGH = 0.35, 0.75

_PITCH_HZ = (70.0, 450.0)
_OFFSET_BINS = 3  # 0 to 31 Hz, as wide as the window spreads an offset
_VOICED = 0.55
_BLOCK_VOICED_FRAMES = 10
_SEMITONES_LOW, _SEMITONES_HIGH = 6.0, 12.0
_GAP_LOW, _GAP_HIGH = 1.0, 4.0
_LEAST_GROUPS = 3
_MOST_CHANGES = 200


def music_score(frames: Power) -> float:
    """0 (speech or noise) to 1 (sustained tones) for a clip, from the persistence of spectral peaks.

    After Seyerlehner et al., "Automatic music detection in television productions" (DAFx 2007): a bin is active where
    its power is 3 dB above that of its neighbours; music keeps the same bins active over seconds, a voice glides. The
    score is the mean activity of the five most active separate bins in the most musical two seconds, from 0.35 (score
    0) to 0.75 (score 1). Drums alone, or music far below speech, are not found; a held sung note or hum above 200 Hz
    is.

    Args:
        frames: `power_frames`, shape (frames, 513).
    """
    if len(frames) < _MUSIC_BLOCK_FRAMES // 2:
        return 0.0
    kernel = np.full(_PEAK_BINS, 1 / _PEAK_BINS)
    band = frames[:, _MUSIC_BINS]
    sums = np.concatenate([np.zeros((len(band), 1)), np.cumsum(band, axis=1, dtype=np.float64)], axis=1)
    half = len(kernel) // 2
    inner = band[:, half:-half]
    around = (sums[:, _PEAK_BINS:] - sums[:, :-_PEAK_BINS]) / _PEAK_BINS
    audible = band.sum(axis=1, keepdims=True) > 1e-8
    active = (inner > around * 10 ** (_ACTIVATION_DB / 10)) & audible
    counts = np.concatenate([np.zeros((1, active.shape[1])), np.cumsum(active, axis=0, dtype=np.float64)])
    span = min(_MUSIC_BLOCK_FRAMES, len(frames))
    starts = np.arange(0, len(frames) - span + 1, max(1, span // 2))
    best = 0.0
    for activity in (counts[starts + span] - counts[starts]) / span:
        peaks = activity[1:-1] * ((activity[1:-1] >= activity[:-2]) & (activity[1:-1] > activity[2:]))
        best = max(best, float(np.sort(peaks)[-_MUSIC_TOP:].mean()))
    return float(np.clip((best - _MUSIC_LOW) / (_MUSIC_HIGH - _MUSIC_LOW), 0.0, 1.0))


def several_speakers_score(frames: Power, probabilities: npt.NDArray[np.float32]) -> float:
    """0 (one register) to 1 (two voices an octave apart) for a clip, from its fundamental frequency over time.

    The voiced frames are taken ten at a time (0.3 s of voice). The score is the higher of two:

    - range: the distance between the highest and lowest median pitch that at least two such groups reach, from 6
      semitones (0) to 12 (1), in whatever order they come;
    - change: where the clip can be cut so that nearly all groups on one side (three or more) lie above those on the
      other, the gap between the lower fifth of the higher side and the upper fifth of the lower one, from 1 semitone
      (0) to 4 (1). One voice moves within its range and returns; a second one stays where it is, so that less of a
      distance tells. Measured: of one voice 99 in 100 clips stay below 2.2 semitones (500 of children, 240 of
      adults), of a man's and a woman's clip joined three in four are above 3, half above 5.8.

    It finds a man and a woman, or a child and a man, one after the other. It cannot tell voices of one register, nor
    people who talk at once, and a lively reader scores above 0.

    Args:
        frames: `power_frames`, shape (frames, 513).
        probabilities: one per frame.
    """
    pitch = _pitches(frames[probabilities >= 0.5])
    groups = len(pitch) // _BLOCK_VOICED_FRAMES
    if groups < 4:
        return 0.0
    medians = 12 * np.log2(np.median(pitch[: groups * _BLOCK_VOICED_FRAMES].reshape(groups, -1), axis=1))
    by_height = np.sort(medians)
    spread = (by_height[-2] - by_height[1] - _SEMITONES_LOW) / (_SEMITONES_HIGH - _SEMITONES_LOW)
    change = (_widest_gap(medians) - _GAP_LOW) / (_GAP_HIGH - _GAP_LOW)
    return float(np.clip(max(spread, change), 0.0, 1.0))


def _widest_gap(semitones: npt.NDArray[np.float64]) -> float:
    """The gap between the pitches before and after the place where it is widest; negative: they overlap everywhere.

    A recording with more than 200 places to cut at (a minute of voice) is cut at 200 of them, evenly spread.
    """
    places = np.arange(_LEAST_GROUPS, len(semitones) - _LEAST_GROUPS + 1)
    widest = -np.inf
    for place in places[:: max(1, -(-len(places) // _MOST_CHANGES))].tolist():
        low, high = np.quantile(semitones[:place], (0.2, 0.8))
        later_low, later_high = np.quantile(semitones[place:], (0.2, 0.8))
        widest = max(widest, float(low - later_high), float(later_low - high))
    return widest


def _pitches(frames: Power) -> npt.NDArray[np.float64]:
    """Fundamental frequency in Hz of the voiced ones among ``frames``, from the autocorrelation."""
    size = 2 * (frames.shape[1] - 1)
    frames = frames.copy()
    frames[:, :_OFFSET_BINS] = 0  # a constant offset is no period
    correlation = np.fft.irfft(frames, axis=1)[:, : size // 2]
    correlation /= np.maximum(correlation[:, :1], 1e-20)
    shortest, longest = (round(SAMPLE_RATE_HZ / hz) for hz in reversed(_PITCH_HZ))
    window = correlation[:, shortest : longest + 1] / _window_correlation(size)[shortest : longest + 1]
    highest = window.max(axis=1, initial=0.0)
    # The first peak that nearly reaches the highest: a multiple of the period is as high as the period itself.
    rises = (window[:, 1:-1] >= window[:, :-2]) & (window[:, 1:-1] > window[:, 2:])
    good = rises & (window[:, 1:-1] >= 0.85 * highest[:, None])
    voiced = (highest >= _VOICED) & good.any(axis=1)
    return SAMPLE_RATE_HZ / (shortest + 1.0 + good[voiced].argmax(axis=1))


def _window_correlation(size: int) -> npt.NDArray[np.float64]:
    """Autocorrelation of the Hann window, as circular as that of the frames."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.fft.irfft(np.abs(np.fft.rfft(hann)) ** 2) / np.square(hann).sum()
