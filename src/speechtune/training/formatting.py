"""Examples in a training format: clips put together, clips without speech, and the labels that go with them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speechtune.audio.augment import AugmentConfig, AugmentDraw, Augmenter, EffectDraw, join_texts, rng_for
from speechtune.audio.augment.effects.base import Effect
from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.corpus.conditions import require_column
from speechtune.corpus.table import Utterance
from speechtune.models.family import Example, Family
from speechtune.models.whisper_format import SEED_LIMIT, TASKS, LabelDraw, LabelText, Segment, WhisperFormat
from speechtune.training.config import TrainingConfig
from speechtune.training.format_config import FormatConfig
from speechtune.training.format_history import History, history_of
from speechtune.training.format_plan import FormatPlan, Numbers, Unit

if TYPE_CHECKING:
    from speechtune.training.data import Pick
    from speechtune.training.pool import Pool

Waveform = npt.NDArray[np.float32]
Span = tuple[float, float]
Read = Callable[[int, int, int, float], Waveform]
"""From an utterance's index, the epoch, the place and the speed to its waveform as it is trained on."""

COLUMNS = {"speaker": "speaker_id", "session": "session_id", "recording": "file_name"}
_SAME_LENGTH = Effect.duration_after.__func__  # type: ignore[attr-defined]


class TrainingFormat:
    """Builds the examples that ``training.format`` asks for."""

    def __init__(
        self, config: TrainingConfig, family: Family, utterances: list[Utterance], history: History | None, lower: bool
    ) -> None:
        self.config = config.format
        self.seed = config.seed
        self.family: Any = family
        self.utterances = utterances
        self.history = history
        self.lower = lower
        self.writer = _writer(config, family)
        self.window_s = family.limits.max_audio_s
        self.noises = _noises(self.config, self.window_s)
        self._check_prompts()
        self.planner = self._planner()

    def begin(self) -> None:
        """Called once before the training: a model that learns empty labels must be allowed to give them."""
        if self.config.teaches_silence:
            self.family.allow_empty()

    def units(self, seed: int, epoch: int, shown: Sequence[int], durations_s: Numbers) -> list[Unit]:
        """See `FormatPlan.units`."""
        return self.planner.units(seed, epoch, shown, durations_s)

    def read(self, pick: Pick, read: Read) -> Example:
        """The waveform and the label of an example, without masks."""
        waveform, spans = self.audio(pick, read)
        return self.example(pick, waveform, spans)

    def audio(self, pick: Pick, read: Read) -> tuple[Waveform, list[Span]]:
        """The waveform of an example, and where each of its clips begins and ends in it, in seconds.

        Raises:
            InputError: clips that fit by the table do not fit by their files.
        """
        if pick.empty_s > 0:
            return self._without_speech(pick), []
        clips = [read(pick.index, pick.epoch, pick.place, pick.speed)]
        clips += [read(part.index, pick.epoch, part.place, part.speed) for part in pick.parts]
        gaps = [0, *(round(part.gap_s * SAMPLE_RATE_HZ) for part in pick.parts)]
        total, most = sum(map(len, clips)) + sum(gaps), round(self.window_s * SAMPLE_RATE_HZ)
        if total > most and pick.parts:
            raise InputError(
                f"clips packed behind utterance {self.utterances[pick.index].utterance_id} last "
                f"{total / SAMPLE_RATE_HZ:.2f} s, more than the window: duration_s of one of them is not what its "
                "file holds, so run speechtune import again"
            )
        pieces: list[Waveform] = []
        spans: list[Span] = []
        at = 0
        for clip, gap in zip(clips, gaps, strict=True):
            pieces += [np.zeros(gap, np.float32), clip] if gap else [clip]
            spans.append(((at + gap) / SAMPLE_RATE_HZ, (at + gap + len(clip)) / SAMPLE_RATE_HZ))
            at += gap + len(clip)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces), spans

    def planned_spans(self, pick: Pick, durations_s: Sequence[float]) -> list[Span]:
        """Where the clips of an example begin and end by the table, for checks that read no audio."""
        if pick.empty_s > 0:
            return []
        at = durations_s[pick.index] / pick.speed
        spans = [(0.0, at)]
        for part in pick.parts:
            start, at = at + part.gap_s, at + part.gap_s + durations_s[part.index] / part.speed
            spans.append((start, at))
        return spans

    def example(self, pick: Pick, waveform: Waveform, spans: Sequence[Span]) -> Example:
        """An example of a waveform whose clips lie at ``spans``."""
        label = self.label(pick, spans)
        if self.writer is None:
            return Example(waveform, *self.family.tokens(label.text))
        written = self.writer.write(label, self.draw(pick))
        return Example(waveform, written.tokens, written.prompt_tokens, inputs=written.inputs, targets=written.targets)

    def label(self, pick: Pick, spans: Sequence[Span]) -> LabelText:
        """What the label of an example says."""
        first = self.utterances[pick.index]
        indices = [] if pick.empty_s > 0 else [pick.index, *(part.index for part in pick.parts)]
        texts = [self.text_of(self.utterances[index]) for index in indices]
        language, task = self._language(first), self._task(first)
        return LabelText(
            segments=tuple(Segment(text, *span) for text, span in zip(texts, spans, strict=True)),
            text=join_texts(texts, language or self.family.language),
            previous=self.history.before(pick.index, indices, self.text_of) if self.history is not None else (),
            language=language,
            task=task,
        )

    def draw(self, pick: Pick) -> LabelDraw:
        """What is drawn for the label of an example."""
        wanted = self.config
        kind = "empty" if pick.empty_s > 0 else "format"
        rng = rng_for(self.seed, pick.epoch, f"{self.utterances[pick.index].utterance_id}\n{pick.place}\n{kind}")
        timestamps, previous = rng.random(2) < (wanted.timestamps_share, wanted.previous_text_share)
        how_many = int(rng.integers(1, wanted.previous_text_utterances + 1))
        bpe_seed, noise_seed = rng.integers(0, SEED_LIMIT, 2).tolist()
        return LabelDraw(
            timestamps=bool(timestamps),
            previous=how_many if previous else 0,
            bpe_seed=bpe_seed if wanted.bpe_dropout > 0 else None,
            noise_seed=noise_seed if wanted.decoder_noise > 0 else None,
        )

    def text_of(self, utterance: Utterance) -> str:
        """The text an utterance is trained on."""
        return utterance.text.lower() if self.lower else utterance.text

    def empty_draw(self, pick: Pick) -> AugmentDraw:
        """What is heard in an example without speech."""
        name = f"empty\n{pick.place}"
        rng, span_s = rng_for(self.seed, pick.epoch, name), (pick.empty_s, pick.empty_s)
        return self.noises.draw_empty(rng, name, span_s, self.config.empty.noise_share)

    def _without_speech(self, pick: Pick) -> Waveform:
        drawn = self.empty_draw(pick)
        waveform = self.noises.apply(drawn, np.zeros(0, np.float32))
        peak = float(np.abs(waveform).max(initial=0.0))
        if peak > 1.0:
            quieter = EffectDraw("gain", {"gain_db": -20.0 * float(np.log10(peak))})
            waveform = self.noises.apply(replace(drawn, effects=(quieter,)), waveform)
        return waveform

    def _language(self, utterance: Utterance) -> str | None:
        column = self.config.language_column
        value = utterance.column(column) if column else None
        return None if value is None else str(value)

    def _task(self, utterance: Utterance) -> str:
        column = self.config.task_column
        value = utterance.column(column) if column else None
        return "transcribe" if value is None else str(value)

    def _check_prompts(self) -> None:
        """Every language and task that occurs is one the model has."""
        seen: set[tuple[str | None, str]] = set()
        for utterance in self.utterances if self.config.language_column or self.config.task_column else []:
            wanted = self._language(utterance), self._task(utterance)
            if wanted in seen:
                continue
            seen.add(wanted)
            if wanted[1] not in TASKS:
                raise InputError(
                    f"utterance {utterance.utterance_id} has {self.config.task_column} {wanted[1]!r}: "
                    f"use {' or '.join(TASKS)}, or leave it out"
                )
            try:
                assert self.writer is not None
                self.writer.prompt_of(*wanted)
            except InputError as error:
                raise InputError(f"utterance {utterance.utterance_id}: {error}") from error

    def _planner(self) -> FormatPlan:
        if not self.config.groups:
            return FormatPlan(self.config, window_s=self.window_s)
        writer, same = self.writer, self.config.pack.same
        column = COLUMNS.get(same, same)
        if same != "any":
            require_column(self.utterances, column, "the training data")
        keys: list[Hashable | None] = []
        tokens: list[int] = []
        for one in self.utterances:
            value = "" if same == "any" else one.column(column)
            keys.append(None if value is None else (str(value), self._language(one), self._task(one)))
            text = self.text_of(one)
            ids = self.family.tokens(text)[0] if writer is None else writer.encode(text, self._language(one))
            tokens.append(len(ids) + (2 if self.config.timestamps_share > 0 else 0))
        most = self.family.limits.max_label_tokens if writer is None else writer.max_text - 1
        return FormatPlan(self.config, keys, tokens, most, self.window_s)


def format_for(config: TrainingConfig, pool: Pool, family: Family, *, lower: bool = False) -> TrainingFormat | None:
    """The training format of a recipe, ``None`` where ``training.format`` asks for nothing.

    Args:
        config: the recipe's ``training``.
        pool: the training utterances, with the corpus they come from.
        family: the model.
        lower: whether texts are trained on in lower case.

    Raises:
        InputError: the model's family has no such format, a column is missing, an order cannot be known, or an
            augmentation changes the length of clips that are packed.
    """
    wanted = config.format
    if not wanted.enabled:
        return None
    if wanted.groups:
        for augment in (config.augment, *config.augment_by.values.values()):
            _refuse_other_lengths(augment)
    history = history_of(pool, wanted) if wanted.previous_text_share > 0 else None
    for column in (wanted.language_column, wanted.task_column):
        if column is not None:
            require_column(pool.utterances, column, "the training data")
    return TrainingFormat(config, family, pool.utterances, history, lower)


def _writer(config: TrainingConfig, family: Family) -> WhisperFormat | None:
    """What writes the labels; ``None`` for a family without a format, of which only groups may be asked."""
    wanted = config.format
    make = getattr(family, "label_format", None)
    if make is None:
        rest = wanted.model_copy(update={"pack": FormatConfig().pack, "join_share": 0.0})
        asked = [name for name in FormatConfig.model_fields if getattr(rest, name) != getattr(FormatConfig(), name)]
        if asked:
            raise InputError(
                f"the family {family.name} has no such training format: remove training.format.{asked[0]} (it takes "
                "training.format.pack and join_share)"
            )
        return None
    writer: WhisperFormat = make()
    writer.bpe_dropout, writer.noise_share = wanted.bpe_dropout, wanted.decoder_noise
    writer.contrast = wanted.teaches_silence
    if wanted.timestamps_share > 0:
        writer.require_timestamps()
    return writer


def _noises(config: FormatConfig, window_s: float) -> Augmenter:
    return Augmenter(AugmentConfig(noise_dir=config.empty.noise_dir, max_duration_s=window_s))


def _refuse_other_lengths(augment: AugmentConfig) -> None:
    for branch in augment.branches() if augment.enabled else []:
        for effect in branch.effects:
            if type(effect).duration_after.__func__ is not _SAME_LENGTH:  # type: ignore[attr-defined]
                raise InputError(
                    f"training.augment has the effect {effect.kind}, which changes the length of clips that "
                    "training.format puts together: use training.speed instead, or do without pack and join_share"
                )
