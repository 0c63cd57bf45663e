"""Where curves are sent beside ``metrics.jsonl``: TensorBoard, Weights & Biases, trackio. All write into the run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from speechtune.core.errors import missing_extra

_set_here: set[str] = set()
"""Variables that were set by `prepare_trackers`, not by the user: a next stage sets them anew."""

_EXTRAS = {"tensorboard": ("tensorboard", "train"), "wandb": ("wandb", "wandb"), "trackio": ("trackio", "trackio")}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, before any work is done for it.

    Raises:
        InputError: the sentence names the extra that brings it.
    """
    for name in names:
        package, extra = _EXTRAS[name]
        if find_spec(package) is None:
            raise missing_extra(package, extra)


def prepare_trackers(names: Sequence[str], directory: Path) -> dict[str, str]:
    """Set the environment that the trackers read, and return what was set.

    Nothing is sent anywhere unless the user's environment says so: W&B runs offline unless ``WANDB_MODE`` is set. A
    resumed training continues the same W&B run, named after its directory.

    Raises:
        InputError: a tracker is not installed.
    """
    check_trackers(names)
    place = directory.resolve()
    run_id = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    settings = {"TENSORBOARD_LOGGING_DIR": str(directory / "tensorboard")}
    os.environ |= settings
    defaults: dict[str, str] = {}
    if "wandb" in names:
        defaults |= {"WANDB_MODE": "offline", "WANDB_PROJECT": "speechtune", "WANDB_NAME": directory.name}
        defaults |= {"WANDB_DIR": str(place), "WANDB_RUN_ID": run_id, "WANDB_RESUME": "allow", "WANDB_SILENT": "true"}
    if "trackio" in names:
        defaults |= {"TRACKIO_DIR": str(place / "trackio")}
    for name, value in defaults.items():
        if name not in os.environ or name in _set_here:
            os.environ[name] = value
            _set_here.add(name)
        settings[name] = os.environ[name]
    if "wandb" in names:
        Path(settings["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
    return settings
