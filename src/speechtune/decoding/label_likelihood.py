"""How probable a model finds a given transcript: teacher-forced log-probabilities, compared with its own hypothesis.

A model assigns a text the probability of its tokens one after the other. How a text is written (capitals, a full stop)
moves that more than many a wrong word does, so every transcript is scored in the forms that speech models write, and
the most probable form counts; a model's own hypothesis competes in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from speechtune.core.errors import InputError
from speechtune.models.capabilities import can
from speechtune.models.family import Example, Family

_ROUND = 4


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a model makes of one text of one recording; log-probabilities are natural.

    ``mean``: over the tokens and the end token. ``total``: their sum. ``end``: of the end token, so how willingly the
    model stops there. ``lowest_word``, ``lowest_word_log_prob``: the least probable word, by the mean over its tokens
    (``None`` for an empty text). ``tokens``: how many, the end included.
    """

    mean: float
    total: float
    end: float
    tokens: int
    lowest_word: str | None
    lowest_word_log_prob: float | None

    def to_json(self) -> dict[str, Any]:
        """The numbers, rounded, as one JSON object."""
        rounded = {name: round(value, _ROUND) for name, value in asdict(self).items() if isinstance(value, float)}
        return asdict(self) | rounded


def written_forms(text: str) -> list[str]:
    """A transcript as it stands, in lower case, and as a sentence with a capital and a full stop; without doubles."""
    plain = " ".join(text.split())
    lower = plain.lower()
    sentence = lower[:1].upper() + lower[1:]
    stop = "." if sentence and sentence[-1].isalnum() else ""
    return list(dict.fromkeys([plain, lower, sentence + stop]))


def label_likelihoods(
    family: Family, waveforms: Sequence[np.ndarray], texts: Sequence[Sequence[str]], n_frames: int
) -> list[list[Likelihood | None]]:
    """The likelihood of each text of each recording, in the most probable of its `written_forms`.

    Every recording is encoded once, however many texts it has.

    Args:
        family: an encoder-decoder model.
        waveforms: mono 16 kHz recordings; each within the model's window.
        texts: for every recording its texts, such as the label and the model's own hypothesis.
        n_frames: the audio context (from `Family.context_frames`) of the longest recording.

    Returns:
        For every recording one entry a text; ``None`` where the text has more tokens than the model takes.

    Raises:
        InputError: the family does not declare it.
    """
    if not can(family, "label_likelihood"):
        raise InputError(
            f"a {family.name} model gives no probability to each token of a text: judge labels with a Whisper model"
        )
    rows: list[tuple[int, int, list[int], int]] = []  # recording, text, tokens, how many of them are prompt
    for recording, own in enumerate(texts):
        for place, text in enumerate(own):
            for form in written_forms(text):
                tokens, prompt = family.tokens(form)
                if len(tokens) - 1 <= family.limits.max_label_tokens:
                    rows.append((recording, place, tokens, prompt))
    best: dict[tuple[int, int], tuple[list[int], np.ndarray]] = {}
    for (recording, place, tokens, prompt), values in zip(
        rows, _scored(family, waveforms, rows, n_frames), strict=True
    ):
        if (recording, place) not in best or values.sum() > best[recording, place][1].sum():
            best[recording, place] = tokens[prompt:], values
    found = {key: _summary(family, *chosen) for key, chosen in best.items()}
    return [[found.get((recording, place)) for place in range(len(own))] for recording, own in enumerate(texts)]


@torch.inference_mode()
def _scored(
    family: Family, waveforms: Sequence[np.ndarray], rows: Sequence[tuple[int, int, list[int], int]], n_frames: int
) -> list[np.ndarray]:
    """Log-probabilities of every row's tokens after the prompt."""
    if not rows:
        return []
    model: Any = family.model
    device = next(model.parameters()).device
    encoded = _encoded(family, waveforms, rows[0], n_frames)
    longest = max(len(tokens) for _, _, tokens, _ in rows) - 1
    at_once = max(1, int(2**28 / (4 * longest * int(model.config.vocab_size))))  # 256 MiB of logits
    found: list[np.ndarray] = []
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        inputs = torch.zeros((len(part), longest), dtype=torch.long, device=device)
        for line, (_, _, tokens, _) in enumerate(part):
            inputs[line, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        whose = torch.tensor([recording for recording, *_ in part], device=device)
        states = type(encoded)(**{name: one[whose] for name, one in encoded.items()})
        logits = model(encoder_outputs=states, decoder_input_ids=inputs, use_cache=False).logits
        for line, (_, _, tokens, prompt) in enumerate(part):
            own = logits[line, prompt - 1 : len(tokens) - 1].float().log_softmax(-1)
            wanted = torch.tensor(tokens[prompt:], device=device)
            found.append(own.gather(1, wanted[:, None])[:, 0].cpu().numpy())
    return found


def _encoded(
    family: Family, waveforms: Sequence[np.ndarray], row: tuple[int, int, list[int], int], n_frames: int
) -> ModelOutput:
    """What the encoder says of each recording: states, and their mask where there is one."""
    encode = getattr(family, "encode", None)
    if encode is not None:
        found = encode(waveforms)
        return type(found)(**{name: one for name, one in found.items() if isinstance(one, torch.Tensor)})
    device = next(family.model.parameters()).device
    audio = family.collate([Example(waveform, row[2], row[3]) for waveform in waveforms], n_frames)
    states = family.part("encoder")(audio["input_features"].to(device)).last_hidden_state
    return BaseModelOutput(last_hidden_state=states)


def _summary(family: Family, tokens: Sequence[int], values: np.ndarray) -> Likelihood:
    words: dict[int, list[float]] = {}
    names: list[str] = []
    for place in range(len(tokens) - 1):
        names = family.text(tokens[: place + 1]).split()
        words.setdefault(max(len(names) - 1, 0), []).append(float(values[place]))
    means = {word: sum(own) / len(own) for word, own in words.items()}
    lowest = min(means, key=lambda word: means[word], default=None)
    return Likelihood(
        mean=float(values.mean()),
        total=float(values.sum()),
        end=float(values[-1]),
        tokens=len(tokens),
        lowest_word=names[lowest] if lowest is not None and lowest < len(names) else None,
        lowest_word_log_prob=means[lowest] if lowest is not None else None,
    )
