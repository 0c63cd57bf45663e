"""The layouts that speechtune imports: one small file each, and one line here."""

from __future__ import annotations

from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers import (
    audiofolder,
    chat,
    children,
    common_voice,
    elan,
    fairseq,
    fleurs,
    huggingface,
    indicvoices,
    kaldi,
    kathbath,
    lhotse,
    librispeech,
    mls,
    nemo,
    paired,
    qwen3_asr,
    shards,
    subtitles,
    textgrid,
    voxforge,
    whisper_json,
)
from speechtune.corpus.importers.raw import Importer, RawRow

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        huggingface.IMPORTER,
        kaldi.IMPORTER,
        lhotse.IMPORTER,
        qwen3_asr.IMPORTER,
        nemo.IMPORTER,
        common_voice.IMPORTER,
        fleurs.IMPORTER,
        children.IMPORTER,
        mls.IMPORTER,
        librispeech.IMPORTER,
        kathbath.IMPORTER,
        fairseq.IMPORTER,
        voxforge.IMPORTER,
        indicvoices.IMPORTER,
        whisper_json.IMPORTER,
        shards.IMPORTER,
        audiofolder.IMPORTER,
        chat.IMPORTER,
        elan.IMPORTER,
        textgrid.IMPORTER,
        subtitles.IMPORTER,
        paired.IMPORTER,
    )
}
"""Layouts by name, in the order in which they are tried: the most particular first."""

__all__ = ["IMPORTERS", "Importer", "RawRow", "find_importer"]


def find_importer(source: str, name: str | None = None) -> Importer:
    """The importer called ``name``, or the first that recognises ``source``.

    Raises:
        InputError: no such name, no such source, or a layout that none recognises.
    """
    if name is not None and name not in IMPORTERS:
        raise InputError(f"there is no import format {name!r}: choose one of {', '.join(IMPORTERS)}")
    if not source.startswith("hf:") and not Path(source).exists():
        raise InputError(f"the source {source} does not exist: check the path")
    if name is not None:
        return IMPORTERS[name]
    for importer in IMPORTERS.values():
        if importer.recognises(source):
            return importer
    if Path(source).is_dir() and not any(Path(source).iterdir()):
        raise InputError(f"the source {source} is an empty folder: point at the folder that holds the recordings")
    raise InputError(
        f"the layout of {source} is none that speechtune knows: give it a metadata.jsonl (file_name, text), "
        f"put a .txt beside each recording, or choose --format {'|'.join(IMPORTERS)}"
    )
