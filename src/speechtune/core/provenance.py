"""What a result came from: versions, machine, command, seeds."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import speechtune

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "ctranslate2", "numpy", "soundfile", "soxr")


def provenance(seed: int | None = None, **facts: Any) -> dict[str, Any]:
    """A JSON-ready record of this process: when, which command, which versions, which machine."""
    versions = {"speechtune": speechtune.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["speechtune", *sys.argv[1:]],
        "versions": versions,
        "hardware": hardware(),
        "seed": seed,
        **facts,
    }


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, and accelerators if torch is loaded."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts


def memory_bytes() -> int:
    """Physical memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory this machine can still give, in bytes (Linux; elsewhere all of it)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            fields = dict(line.split(":", 1) for line in stream)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return memory_bytes()


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()
