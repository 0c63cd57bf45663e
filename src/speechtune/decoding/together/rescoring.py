"""One system's N-best lists put into the order of another model, which never searched itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.together.systems import System
from speechtune.decoding.transcript import Transcript

_UNKNOWN = -1e9


def judge_lists(system: System, corpus: Corpus, opened: OpenedModel) -> dict[str, list[float]]:
    """The other model's summed log-probability of every hypothesis of a system's N-best lists.

    A text is scored in the most probable of its written forms (`label_likelihoods`), so the two models may differ in
    capitals and punctuation.

    Args:
        system: transcripts with N-best lists, or plain ones (a list of one).
        corpus: the audio of those utterances.
        opened: the model that judges.

    Raises:
        InputError: an utterance of the transcripts is not in the corpus, or the model has no decoder.
    """
    from speechtune.audio.io import load_audio

    wanted = [one for one in corpus.utterances if one.utterance_id in system.transcripts]
    if len(wanted) != len(system.transcripts):
        known = {one.utterance_id for one in wanted}
        missing = next(name for name in system.transcripts if name not in known)
        raise InputError(f"{missing!r} is transcribed and not in {corpus.root}: give the corpus it was decoded from")
    family, found = opened.family, {}
    family.model.eval()
    for batch, n_frames in track(plan_batches(family, wanted, opened.decoding), "rescore"):
        waveforms = [load_audio(corpus.path_of(one), one.start_s, one.end_s) for one in batch]
        texts = [_texts(system.transcripts[one.utterance_id]) for one in batch]
        judged = label_likelihoods(family, waveforms, texts, n_frames)
        for utterance, own in zip(batch, judged, strict=True):
            found[utterance.utterance_id] = [one.total if one else _UNKNOWN for one in own]
    return found


def combine_rescored(system: System, judged: dict[str, list[float]], weight: float) -> list[Transcript]:
    """Each list in the order of (1 - weight) x own + weight x the other model's summed log-probability.

    The flag ``rescored`` marks a text that was not first before. Equal totals keep their order.

    Raises:
        InputError: the weight is no share, or a list has no scores.
    """
    if not 0 <= weight <= 1:
        raise InputError(f"--weight {weight:g} is not between 0 and 1: it is the other model's share")
    made = []
    for name, transcript in system.transcripts.items():
        if not transcript.nbest:
            made.append(transcript)
            continue
        if any("sum_log_prob" not in row for row in transcript.nbest):
            raise InputError(
                f"the N-best list of {name} has no sum_log_prob: decode with decoding.beams=8 decoding.search.n_best=8"
            )
        totals = (1 - weight) * _own(transcript) + weight * np.array(judged[name])
        order = np.argsort(-totals, kind="stable")
        rows = [
            {**transcript.nbest[place], "other_log_prob": round(judged[name][place], 4), "total": float(totals[place])}
            for place in order
        ]
        flags = [*transcript.flags, *(["rescored"] if rows[0]["text"] != transcript.text else [])]
        mean = rows[0].get("log_prob", transcript.log_prob)
        made.append(replace(transcript, text=str(rows[0]["text"]), nbest=rows, flags=flags, log_prob=mean))
    return made


def _texts(transcript: Transcript) -> list[str]:
    return [str(row["text"]) for row in transcript.nbest] or [transcript.text]


def _own(transcript: Transcript) -> np.ndarray:
    scores: Sequence[float] = [float(row["sum_log_prob"]) for row in transcript.nbest]
    return np.array(scores)
