"""ELAN annotation files (.eaf): each time-aligned top tier is a speaker, each annotation an utterance.

See https://www.mpi.nl/corpus/manuals/manual-elan_ug.pdf and the EAF schema. Tiers that refer to another
(translations, glosses, words) are read only if ``--set tiers=`` names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import MALFORMED, Importer, RawRow
from speechtune.corpus.importers.spans import (
    Cue,
    cue_rows,
    holds,
    media_of,
    no_folders,
    transcripts,
    words_of_setting,
)

NAME = "elan"
EMPTY_ANNOTATION = "empty annotation"


class TierSettings(BaseModel):
    """What ``--set`` takes."""

    model_config = ConfigDict(extra="forbid")

    tiers: str = Field("", description="Names of the tiers to read, comma-separated; empty: every tier of transcripts.")


def recognises(source: str) -> bool:
    """A .eaf file, or a folder that holds one at any depth."""
    return holds(source, (".eaf",))


def read(source: str, settings: TierSettings) -> Iterator[RawRow]:
    """One row per annotation.

    Raises:
        InputError: no .eaf file, one that is not XML, or none of the named tiers in it.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    for path in transcripts(source, (".eaf",), "ELAN files"):
        try:
            document = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, OSError) as error:
            raise InputError(f"{path} is not XML ({error}): save it again with ELAN") from error
        media = [unquote(urlparse(one.get(key, "")).path) for one in document.iter("MEDIA_DESCRIPTOR") for key in _URLS]
        yield from cue_rows(_cues(path, document, settings), media_of(path, *media), root)


_URLS = ("RELATIVE_MEDIA_URL", "MEDIA_URL")


def _cues(path: Path, document: ElementTree.Element, settings: TierSettings) -> Iterator[Cue]:
    origin_ms = next((float(one.get("TIME_ORIGIN") or 0) for one in document.iter("MEDIA_DESCRIPTOR")), 0.0)
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in document.iter("TIME_SLOT")}
    annotations = {one.get("ANNOTATION_ID"): one for kind in _KINDS for one in document.iter(kind)}
    tiers = {str(tier.get("TIER_ID")): tier for tier in document.iter("TIER")}
    wanted = words_of_setting(settings.tiers)
    missing = [name for name in wanted if name not in tiers]
    if missing:
        raise InputError(f"{path} has no tier {missing[0]!r} (it has: {', '.join(tiers)}): correct --set tiers")
    languages = {one.get("LANG_ID"): one.get("LANG_ID") for one in document.iter("LANGUAGE")}
    for name, tier in tiers.items():
        if name in wanted or (not wanted and tier.get("PARENT_REF") is None):
            for annotation in tier.iter():
                if annotation.tag in _KINDS:
                    cue = _cue(path, annotation, annotations, slots, origin_ms)
                    cue.speaker = tier.get("PARTICIPANT") or name
                    cue.columns["tier"] = name
                    if language := languages.get(tier.get("LANG_REF")):
                        cue.columns["language"] = language
                    yield cue


_KINDS = ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION")


def _cue(
    path: Path,
    annotation: ElementTree.Element,
    annotations: dict[str | None, ElementTree.Element],
    slots: dict[str | None, str | None],
    origin_ms: float,
) -> Cue:
    value = (annotation.findtext("ANNOTATION_VALUE") or "").replace("\n", " ").strip()
    cue = Cue(where=f"{path} annotation {annotation.get('ANNOTATION_ID')}", text=value, start_s=None, end_s=None)
    aligned: ElementTree.Element | None = annotation
    for _ in range(20):  # a chain of references is as deep as the tiers are nested
        if aligned is None or aligned.tag == _KINDS[0]:
            break
        aligned = annotations.get(aligned.get("ANNOTATION_REF"))
    times = [slots.get(aligned.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)] if aligned is not None else []
    try:
        cue.start_s, cue.end_s = ((float(time or "") + origin_ms) / 1000 for time in times)
    except ValueError:
        cue.problem = (MALFORMED, "it is not aligned with the time axis")
    if not value:
        cue.skip = (EMPTY_ANNOTATION, "it is empty")
    return cue


IMPORTER = Importer(NAME, recognises, read, no_folders, TierSettings)
