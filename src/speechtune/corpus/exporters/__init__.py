"""The layouts that speechtune exports: one small file each, and one line here."""

from __future__ import annotations

from speechtune.core.errors import InputError
from speechtune.corpus.exporters import audiofolder, kaldi, lhotse, nemo, qwen3_asr
from speechtune.corpus.exporters.base import Exporter, ExportRow

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        audiofolder.EXPORTER,
        nemo.EXPORTER,
        lhotse.EXPORTER,
        kaldi.EXPORTER,
        qwen3_asr.EXPORTER,
    )
}
"""Layouts by name."""

__all__ = ["EXPORTERS", "ExportRow", "Exporter", "find_exporter"]


def find_exporter(name: str) -> Exporter:
    """The exporter called ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in EXPORTERS:
        raise InputError(f"there is no export layout {name!r}: choose one of {', '.join(EXPORTERS)}")
    return EXPORTERS[name]
