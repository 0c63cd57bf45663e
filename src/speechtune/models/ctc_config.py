"""The ``model.ctc`` part of a recipe: what only models with a CTC head have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CTC_TYPES = (
    "hubert",
    "parakeet_ctc",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-bert",
    "wavlm",
)
"""The ``model_type`` of the Transformers models that `speechtune.models.ctc` covers.

Not wav2vec2-conformer and data2vec-audio: in Transformers 5.23 their convolutions let padding into the clip; nor sew,
which was not tried.
"""

Case = Literal["auto", "keep", "lower", "upper"]
Unknown = Literal["error", "unk", "remove"]
UnitKind = Literal["characters", "graphemes", "bpe"]


class CtcConfig(BaseModel):
    """Vocabulary, head and training defaults of CTC models; other families do not read it."""

    model_config = ConfigDict(extra="forbid")

    head: Literal["keep", "new"] = Field(
        "keep",
        description="keep: the checkpoint's vocabulary and output layer; new: a vocabulary from the training "
        "transcripts and a fresh output layer (needed for encoders that were only pre-trained).",
    )
    units: UnitKind = Field(
        "characters",
        description="Of a new head: single characters, grapheme clusters (a letter with its marks is one unit), or "
        "byte-pair pieces.",
    )
    bpe_size: int = Field(
        256, ge=16, description="Of a new byte-pair head: pieces, with blank and unknown. Few: a CTC frame says one."
    )
    case: Case = Field(
        "auto",
        description="Case of the labels. auto: as the vocabulary writes (one with capitals only gets capitals), and "
        "as the transcripts are for a new head.",
    )
    punctuation: Literal["keep", "remove"] = Field(
        "keep", description="remove: Unicode punctuation except the apostrophe and the hyphen inside words is left out."
    )
    unknown: Unknown = Field(
        "error",
        description="Characters the vocabulary lacks. error: the run stops before training and lists them; unk: the "
        "unknown token stands for each; remove: they are left out. Their counts are said in any case.",
    )
    focal_gamma: float = Field(
        0.0,
        ge=0,
        le=5,
        description="Focal CTC: in training a clip's loss L is multiplied by (1 - exp(-L)) to this power, so that "
        "clips which are right already count less (Feng et al. 2019; 0.12 to 0.48 in the challenge's second phonetic "
        "place).",
    )
    reduction: Literal["tokens", "sum"] = Field(
        "tokens",
        description="Of the training loss over an optimiser step: the sum divided by its label tokens, or the sum. "
        "Both are the same however the step is cut; the sum grows with the batch, so max_grad_norm must too.",
    )
    freeze_feature_encoder: bool = Field(
        True,
        description="Do not train the convolutions over the waveform (wav2vec 2.0, HuBERT, WavLM), as their papers do "
        "(Baevski et al. 2020, arXiv 2006.11477, section 4.3).",
    )
    layerdrop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Chance of leaving out an encoder layer in a training step. 0, although checkpoints bring 0.1: a "
        "layer left out in one process of several has no gradient there.",
    )
