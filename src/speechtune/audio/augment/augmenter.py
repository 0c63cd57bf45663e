"""Draws the changes of a clip, and applies them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from speechtune.audio.augment.config import AugmentConfig, Branch
from speechtune.audio.augment.draws import AugmentDraw, ClipInfo, EffectDraw
from speechtune.audio.augment.effects import EFFECTS
from speechtune.audio.augment.effects.base import Effect, Samples
from speechtune.audio.augment.effects.noise import Noise, Silence
from speechtune.audio.augment.materials import Materials, Recording, recordings_below
from speechtune.core.errors import InputError

EMPTY_SNR_DB = (0.0, 40.0)
"""Noise of noise-only clips in dB below the nominal speech level (-26 dBFS): from as loud as speech to hardly heard."""


def rng_for(seed: int, epoch: int, utterance_id: str) -> np.random.Generator:
    """The generator of one clip in one epoch: independent of the order in which clips are asked for."""
    digest = hashlib.sha256(utterance_id.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "little")])


class Augmenter:
    """Draws and applies what a config describes.

    Args:
        config: the effects.
        speech: utterances that babble is made of; give those of the training split only.
        materials: what else effects work with; read from the directories of ``config`` when ``None``.

    Raises:
        InputError: a directory is missing or empty, or an effect needs a library or a noise that is not there.
    """

    def __init__(
        self, config: AugmentConfig, speech: Sequence[Recording] = (), materials: Materials | None = None
    ) -> None:
        self.config = config
        self.branches = config.branches() if config.enabled else []
        self.materials = materials or Materials(
            noises=recordings_below(config.noise_dir, "noise") if config.noise_dir else [],
            speech=list(speech),
            impulses=recordings_below(config.impulse_dir, "impulse response") if config.impulse_dir else [],
            max_duration_s=config.max_duration_s,
        )
        for branch in self.branches:
            for effect in branch.effects:
                effect.needs(self.materials)

    def draw(self, rng: np.random.Generator, clip: ClipInfo, branch: str | None = None) -> AugmentDraw | None:
        """The changes of one clip, or ``None`` where it stays as it is.

        Args:
            rng: a seeded generator, for example from `rng_for`.
            clip: what is known about the clip.
            branch: the part of the mixture to draw from; drawn too when ``None``.
        """
        if branch is None and (not self.branches or rng.random() >= self.config.share):
            return None
        chosen = self._branch(branch) if branch is not None else self._any_branch(rng)
        return self._draw(rng, clip, chosen.name, chosen.effects)

    def _any_branch(self, rng: np.random.Generator) -> Branch:
        at = rng.random()
        for branch in self.branches:
            at -= branch.share
            if at < 0:
                return branch
        return self.branches[-1]

    def _branch(self, name: str) -> Branch:
        for branch in self.branches:
            if branch.name == name:
                return branch
        raise InputError(f"the mixture has no part {name!r}: it has {', '.join(one.name for one in self.branches)}")

    def draw_empty(
        self, rng: np.random.Generator, name: str, duration_s: tuple[float, float] = (1.0, 8.0), noise: float = 0.8
    ) -> AugmentDraw:
        """A clip with an empty transcript: silence, or with probability ``noise`` a noise. Apply it to no samples.

        Such clips are what the plan for the children's challenge prescribes against words heard in silence. Noise comes
        from the noise directory, or is white, pink, brown or hum; never babble, which has words in it.
        """
        longest_s = self.materials.max_duration_s
        effects: list[Effect] = [Silence(duration_s=(min(duration_s[0], longest_s), min(duration_s[1], longest_s)))]
        if rng.random() < noise:
            effects.append(Noise(snr_db=EMPTY_SNR_DB, sources=("files", "white", "pink", "brown", "hum")))
        drawn = self._draw(rng, ClipInfo(name, 0.0), "empty", effects)
        assert drawn is not None
        return drawn

    def _draw(
        self, rng: np.random.Generator, clip: ClipInfo, branch: str, effects: Sequence[Effect]
    ) -> AugmentDraw | None:
        drawn = []
        for effect in effects:
            if rng.random() >= effect.probability:
                continue
            parameters = effect.draw(rng, clip, self.materials)
            if parameters is not None:
                drawn.append(EffectDraw(effect.kind, parameters))
                clip = replace(clip, duration_s=effect.duration_after(clip.duration_s, parameters))
        return AugmentDraw(clip.utterance_id, branch, clip.duration_s, tuple(drawn)) if drawn else None

    def apply(self, draw: AugmentDraw, waveform: Samples) -> Samples:
        """The changed clip. Draws nothing and does not write to ``waveform``.

        Args:
            draw: from `draw`, `draw_empty` or a log.
            waveform: float32, shape (samples,), 16 kHz mono.

        Returns:
            float32, shape (samples,), all finite; it may leave [-1, 1].

        Raises:
            InputError: the draw names an effect or a recording that is not there, or a recording cannot be read.
        """
        changed = np.array(waveform, np.float32)
        for _, step in self.steps(draw, waveform):
            changed = step
        return changed

    def steps(self, draw: AugmentDraw, waveform: Samples) -> Iterator[tuple[EffectDraw, Samples]]:
        """Each effect of a draw with the clip after it."""
        changed = np.asarray(waveform, np.float32)
        for one in draw.effects:
            if one.kind not in EFFECTS:
                raise InputError(f"a draw has the effect {one.kind!r}: this version knows {', '.join(EFFECTS)}")
            kind = EFFECTS[one.kind]
            if len(changed) or kind is Silence:
                changed = np.ascontiguousarray(kind.apply(changed, one.parameters, self.materials), np.float32)
            yield one, changed
