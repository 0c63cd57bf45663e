"""The catalogue beside what this version of speechtune loads and what is on this machine. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechtune.models.capabilities import capabilities_of
from speechtune.models.catalogue.entries import CatalogueModel, catalogue
from speechtune.models.obtaining import list_models, models_home


def model_type_of(model: CatalogueModel) -> str:
    """The ``model_type`` of its configuration; the family's name where the catalogue gives none."""
    return model.model_type or model.family


def is_loadable(model: CatalogueModel) -> bool:
    """Whether a family of speechtune loads and trains it."""
    from speechtune.models.family import FAMILIES

    return catalogue().runs_with(model) == "transformers" and model_type_of(model) in FAMILIES


def exports_of(model: CatalogueModel) -> Sequence[str]:
    """The formats of `speechtune export` for it."""
    found = capabilities_of(model_type_of(model)) if is_loadable(model) else None
    return found.exports if found else ()


def catalogue_rows(everything: bool = False) -> list[dict[str, Any]]:
    """The rows of `speechtune models list`: those of `list_models`, and with ``everything`` the rest of the catalogue.

    ``loadable``: this version trains and decodes it; ``None`` for a directory that is not of the catalogue.
    """
    known = {one.name: one for one in catalogue().models}
    rows = [
        {**row, "loadable": is_loadable(known[row["name"]]) if row["name"] in known else None} for row in list_models()
    ]
    for row in rows:
        own = models_home() / row["name"]
        if row["family"] == "owsm" and (own / "owsm.json").is_file():  # `list_models` lists what other verbs can open
            row["path"] = str(own)
    if everything:
        listed = {row["name"] for row in rows}
        for name, model in known.items():
            if name not in listed:
                rows.append(
                    {
                        "name": name,
                        "family": model.family,
                        "source": f"{catalogue().runs_with(model)}: {model.hub}",
                        "languages": catalogue().language_text(model),
                        "licence": model.licence.value,
                        "download_mb": None,
                        "path": None,
                        "parameters_m": model.parameters_m.value,
                        "loadable": False,
                    }
                )
    return rows
