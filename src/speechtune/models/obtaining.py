"""From a name, a hub id or a path to a model directory on this machine.

Models are kept in ``$SPEECHTUNE_HOME/models/<name>`` (default ``~/.cache/speechtune``), except hub downloads that
Transformers can load as they are: those stay in the Hugging Face cache, shared with every other tool.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import new_directory, read_json, write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.models import hub, packaged
from speechtune.models.catalogue.entries import catalogue
from speechtune.models.checking import (
    MARK,
    check_exact,
    check_loads,
    checksums,
    is_ctranslate2,
    is_intact,
    is_transformers,
)
from speechtune.models.family import FAMILIES
from speechtune.models.importers.ctranslate2_whisper import ctranslate2_to_transformers
from speechtune.models.importers.openai_whisper import find_model_file, openai_to_transformers
from speechtune.models.owsm import fetch_owsm, is_checkpoint, is_owsm
from speechtune.models.packages import HUB_ALIASES, PACKAGED, PackagedModel, unknown_name

LOADED = frozenset(FAMILIES)
"""The model types that `check_loads` really loads."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """What `get_model` returns: ``verified`` says how it was checked; ``already_there``: nothing had to be made."""

    name: str
    path: Path
    family: str
    source: str
    licence: str | None
    verified: str
    already_there: bool

    def to_json(self) -> dict[str, Any]:
        """The fields, with ``path`` as text."""
        return {**asdict(self), "path": str(self.path)}


def models_home() -> Path:
    """The directory that holds obtained models, one folder each."""
    home = os.environ.get("SPEECHTUNE_HOME") or "~/.cache/speechtune"
    return Path(home).expanduser() / "models"


def resolve_model(spec: str | Path) -> Path:
    """The directory of a model: what every other room calls. Never uses the network.

    Args:
        spec: a catalogue name (``whisper-tiny.en``), a hub id (``hf:owner/name[@revision]``), the path of a
            Transformers directory (or of a run, whose ``model/`` is meant). A packaged model whose PyPI package is
            installed, or whose wheel is in ``SPEECHTUNE_WHEELS``, is converted on first use.

    Raises:
        InputError: it is not on this machine (the sentence says how to get it), or is not a model.
    """
    spec = str(spec)
    if spec in PACKAGED:
        target = models_home() / spec
        if is_intact(target, thorough=False):
            return target
        if packaged.at_hand(PACKAGED[spec]):
            return _get_packaged(PACKAGED[spec], target, overwrite=target.exists(), allow_download=False).path
        raise InputError(f"the model {spec} is not on this machine yet: run speechtune models get {spec}")
    if is_owsm(spec):
        if is_checkpoint(models_home() / spec):
            return models_home() / spec
        raise InputError(f"the model {spec} is not on this machine yet: run speechtune models get {spec}")
    if spec in HUB_ALIASES or spec.startswith(hub.PREFIX):
        model = hub.HubModel.parse(_hub_spec(spec))
        for path in (models_home() / model.folder, hub.cached(model)):
            if path is not None and is_transformers(path):
                return path
        raise InputError(f"the model {spec} is not on this machine yet: run speechtune models get {spec}")
    return _resolve_path(spec)


def _resolve_path(spec: str) -> Path:
    path = Path(spec).expanduser()
    if not path.exists():
        raise unknown_name(spec)
    for candidate in (path, path / "model"):
        if is_transformers(candidate):
            return candidate
    if is_checkpoint(path):
        return path
    if is_ctranslate2(path):
        raise InputError(f"{path} is a CTranslate2 model: convert it with speechtune models get {path} --out DIR")
    if find_model_file(path) is not None:
        raise InputError(
            f"{path} is a whisper.cpp or openai-whisper model: convert it with speechtune models get {path} --out DIR"
        )
    raise InputError(f"{path} is not a model directory (no config.json with weights beside it): check the path")


def get_model(spec: str, out: Path | None = None, overwrite: bool = False, language: str | None = None) -> Obtained:
    """Obtain a model so that `resolve_model` finds it; returns at once where it is already there and intact.

    Args:
        spec: a catalogue name, a hub id, or a path (a CTranslate2 directory is converted to ``out``, a Transformers
            directory is checked).
        out: the directory to make instead of the one in `models_home`.
        overwrite: make it again.
        language: of the adapter that is fetched with a hub model that has one a language (MMS); no other one is.

    Raises:
        InputError: no adapter for the language, unknown name, no network, wrong checksum, full disk, or not a
            usable model.
    """
    is_of_hub = spec in HUB_ALIASES or spec.startswith(hub.PREFIX)
    if language is not None and not is_of_hub:
        raise InputError(f"a language chooses an adapter of a hub model and {spec} is none: leave out --language")
    if spec in PACKAGED:
        target = out or models_home() / spec
        if not overwrite and is_intact(target, thorough=True):
            return _recorded(target)
        damaged = out is None and (target / MARK).is_file()
        if damaged and not overwrite:
            note(f"{target} is damaged: obtaining it again")
        return _get_packaged(PACKAGED[spec], target, overwrite or damaged)
    if is_owsm(spec):
        return _get_owsm(spec, out, overwrite)
    if is_of_hub:
        return _get_from_hub(hub.HubModel.parse(_hub_spec(spec)), out, overwrite, language)
    return _get_path(spec, out, overwrite)


def list_models() -> list[dict[str, Any]]:
    """Every model known by name, then other ones in `models_home`; ``path`` is ``None`` for those not obtained."""
    home, rows, known = models_home(), [], {one.name: one for one in catalogue().models}
    for name, model in PACKAGED.items():
        path = home / name if is_intact(home / name, thorough=False) else None
        facts = {"languages": model.languages, "licence": model.licence, "download_mb": model.download_mb}
        rows.append({"name": name, "family": model.family, "source": model.source, **facts, "path": path})
    for name, owner_name in HUB_ALIASES.items():
        path = hub.cached(hub.HubModel(owner_name))
        entry = known[name]
        facts = {"languages": catalogue().language_text(entry), "licence": entry.licence.value, "download_mb": None}
        rows.append({"name": name, "family": entry.family, "source": hub.PREFIX + owner_name, **facts, "path": path})
    for path in sorted(home.iterdir()) if home.is_dir() else []:
        if path.name not in PACKAGED and is_intact(path, thorough=False):
            mark = read_json(path / MARK)
            facts = {name: mark.get(name) for name in ("family", "source", "languages", "licence")}
            rows.append({"name": path.name, **facts, "download_mb": None, "path": path})
    for row in rows:
        row["parameters_m"] = known[row["name"]].parameters_m.value if row["name"] in known else None
        row["path"] = str(row["path"]) if row["path"] else None
    return rows


def _hub_spec(spec: str) -> str:
    return hub.PREFIX + HUB_ALIASES[spec] if spec in HUB_ALIASES else spec


def _get_packaged(model: PackagedModel, target: Path, overwrite: bool, allow_download: bool = True) -> Obtained:
    with explain_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".obtain-", ignore_cleanup_errors=True) as folder:
            how = packaged.gather(model, Path(folder) / "files", allow_download)
            card = {
                "name": model.name,
                "family": model.family,
                "source": model.source,
                "languages": model.languages,
                "licence": model.licence,
                "same_weights_as": hub.PREFIX + model.hub,
                "packages": {
                    package.requirement: {"sha256": package.sha256, "had_from": how[package.requirement]}
                    for package in model.packages
                },
                "source_files": {file.target: file.sha256 for file in model.files},
            }
            return _convert(Path(folder) / "files", target, overwrite, card)


def _get_owsm(name: str, out: Path | None, overwrite: bool) -> Obtained:
    target = out or models_home() / name
    present = target.is_dir() and not overwrite
    path = fetch_owsm(name, target, overwrite)
    entry = catalogue().get(name)
    checked = "complete; it is loaded by ESPnet (docs/models.md)"
    return Obtained(name, path, "owsm", f"hf:{entry.hub}", entry.licence.value, checked, already_there=present)


def _get_from_hub(model: hub.HubModel, out: Path | None, overwrite: bool, language: str | None) -> Obtained:
    if out is None:
        present = None if overwrite else hub.cached(model)
        path = present or hub.download(model)
        if language is not None and hub.fetch_adapter(model, language, path):
            present = None
        if is_ctranslate2(path):
            return _convert_once(path, models_home() / model.folder, overwrite, str(model))
        family = check_loads(path)
        checked = "loads with Transformers" if family in LOADED else "complete"
        return Obtained(str(model), path, family, str(model), None, checked, already_there=present is not None)
    with new_directory(out, overwrite) as draft:
        path = hub.download(model, draft / "download")
        if language is not None:
            hub.fetch_adapter(model, language, path, into=path)
        if is_ctranslate2(path):
            raise InputError(f"{model} is a CTranslate2 model: run speechtune models get {model} without --out")
        family = check_loads(path)
        for file in path.iterdir():
            if file.is_file():
                file.rename(draft / file.name)
        shutil.rmtree(path)
        card = {"name": str(model), "family": family, "source": str(model), "verified": family in LOADED}
        _finish(draft, card, "loads with Transformers" if family in LOADED else "complete")
    return _recorded(out, already_there=False)


def _get_path(spec: str, out: Path | None, overwrite: bool) -> Obtained:
    path = Path(spec).expanduser()
    if not path.exists():
        raise unknown_name(spec)
    if is_ctranslate2(path):
        if out is None:
            raise InputError(f"{path} is a CTranslate2 model: say with --out where to write its Transformers form")
        card = {"name": path.resolve().name, "family": "whisper", "source": str(path)}
        return _convert(path, out, overwrite, card)
    file = None if is_transformers(path) else find_model_file(path)
    if file is not None:
        return _convert_file(file, out, overwrite)
    if out is not None:
        raise InputError(f"{path} is not a CTranslate2 model, so there is nothing to convert: leave out --out")
    path = _resolve_path(spec)
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is an adapter, not a whole model: give the model it belongs to")
    family = check_loads(path)
    return Obtained(path.resolve().name, path, family, str(path), None, "loads with Transformers", already_there=True)


def _convert_once(source: Path, target: Path, overwrite: bool, name: str) -> Obtained:
    if not overwrite and is_intact(target, thorough=True):
        return _recorded(target)
    return _convert(source, target, overwrite, {"name": name, "family": "whisper", "source": name})


def _convert(source: Path, target: Path, overwrite: bool, card: dict[str, Any]) -> Obtained:
    note(f"converting {card['name']} to {target}")
    with new_directory(target, overwrite) as draft:
        facts = ctranslate2_to_transformers(source, draft)
        check_loads(draft)
        exact, checked = check_exact(source / "model.bin", draft)
        _finish(draft, {**card, **facts, "verified": exact}, checked)
    return _recorded(target, already_there=False)


def _convert_file(file: Path, out: Path | None, overwrite: bool) -> Obtained:
    """Turn a GGML file or an openai-whisper ``.pt`` into ``out``."""
    if out is None:
        raise InputError(f"{file} is not a Transformers model: say with --out where to write its Transformers form")
    note(f"converting {file} to {out}")
    with new_directory(out, overwrite) as draft:
        facts = openai_to_transformers(file, draft, donors=[models_home() / name for name in PACKAGED])
        check_loads(draft)
        stored = facts["stored_as"]
        checked = f"loads with Transformers; every weight is the stored one ({stored})"
        if not facts["exact"]:
            checked = f"loads with Transformers; weights are the rounded ones of {stored}, not the original's"
        card = {"name": file.stem, "family": "whisper", "source": str(file), **facts, "verified": True}
        _finish(draft, card, checked)
    return _recorded(out, already_there=False)


def _finish(draft: Path, card: dict[str, Any], checked: str) -> None:
    write_json(draft / MARK, {**card, "verified_by": checked, "files": checksums(draft), "provenance": provenance()})


def _recorded(path: Path, already_there: bool = True) -> Obtained:
    mark = read_json(path / MARK)
    return Obtained(
        mark["name"], path, mark["family"], mark["source"], mark.get("licence"), mark["verified_by"], already_there
    )
