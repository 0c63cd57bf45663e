"""OWSM (v3.1, v4 and OWSM-CTC) through ESPnet, which runs in an environment of its own as a subprocess.

ESPnet 202511 asks for setuptools below 74 and torch 2.13 for 77 or later, so the two cannot be installed beside
speechtune by their own rules. ``SPEECHTUNE_ESPNET_PYTHON`` names the Python of the other environment; `OwsmWorker`
starts `speechtune.models.owsm_worker` there and talks to it in lines of JSON, with arrays as ``.npy`` files.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import new_directory, write_json
from speechtune.models.catalogue.entries import catalogue

VARIABLE = "SPEECHTUNE_ESPNET_PYTHON"
PROTOCOL = 1
HOW = f"install ESPnet in an environment of its own (docs/models.md says how) and set {VARIABLE} to its python"
FILES = ("*config.yaml", "*.pth", "*bpe.model", "*feats_stats.npz", "meta.yaml", "README.md")
"""What is fetched of an ESPnet repository on the Hugging Face hub."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of an OWSM checkpoint."""

    config: Path
    weights: Path
    bpe: Path | None

    @classmethod
    def find(cls, directory: Path) -> Checkpoint:
        """The files in a directory or below it, as ESPnet's repositories have them.

        Raises:
            InputError: one is missing, or there are several.
        """
        found = {}
        for name, pattern in (("config", "config.yaml"), ("weights", "*.pth"), ("bpe", "bpe.model")):
            files = sorted(directory.rglob(pattern))
            if len(files) > 1 or (not files and name != "bpe"):
                raise InputError(
                    f"{directory} is no OWSM checkpoint ({len(files)} files {pattern}): give the directory of one"
                )
            found[name] = files[0] if files else None
        return cls(**found)  # type: ignore[arg-type]


class OwsmWorker:
    """An OWSM model in another process; use it in a ``with`` block.

    Args:
        directory: the checkpoint (`Checkpoint.find`).
        device: as torch names it.
        python: the other environment's Python; ``None``: what ``SPEECHTUNE_ESPNET_PYTHON`` says.
        script: the worker's file; only tests give another.

    Raises:
        InputError: no such environment, ESPnet is missing there, or the checkpoint does not load.
    """

    def __init__(
        self, directory: Path, device: str = "cpu", python: str | None = None, script: Path | None = None
    ) -> None:
        files = Checkpoint.find(directory)
        given = python or os.environ.get(VARIABLE)
        if not given:
            raise InputError(f"OWSM runs through ESPnet, and {VARIABLE} is not set: {HOW}")
        self._folder = tempfile.TemporaryDirectory(prefix="speechtune-owsm-")
        self._asked = 0
        command = [given, str(script or Path(__file__).with_name("owsm_worker.py"))]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        log = Path(self._folder.name) / "log"
        try:
            self._log = log.open("wb")
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
            )
        except OSError as error:
            self._folder.cleanup()
            raise InputError(f"{VARIABLE} names {given}, which does not start ({error.strerror}): {HOW}") from error
        try:
            hello = self._ask("hello")
            if hello["protocol"] != PROTOCOL:
                raise InputError(f"the worker speaks protocol {hello['protocol']}, not {PROTOCOL}: use this version's")
            paths = {"config": str(files.config), "weights": str(files.weights), "bpe": files.bpe and str(files.bpe)}
            self.about: dict[str, Any] = {**hello, **self._ask("load", **paths, device=device)}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> OwsmWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str, task: str = "asr") -> list[str]:
        """The text of each mono 16 kHz waveform of at most 30 s.

        Args:
            waveforms: the clips.
            language: ESPnet's three letters, as in ``eng``.
            task: ``asr``, or ``st_deu`` to translate into German.

        Raises:
            InputError: the model has no such language or task.
        """
        self._check(language, task)
        return list(self._ask("transcribe", audio=self._written(waveforms), language=language, task=task))

    def recognise(
        self, waveforms: Sequence[np.ndarray], language: str, task: str = "asr", beams: int = 5
    ) -> list[dict[str, Any]]:
        """As `transcribe`, with so many beams: ``text``, ``tokens`` and, where ESPnet tells it, ``score`` of each."""
        self._check(language, task)
        return list(self._ask("recognise", audio=self._written(waveforms), language=language, task=task, beam=beams))

    def loss(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str], language: str, task: str = "asr"
    ) -> list[float]:
        """ESPnet's loss of each clip with its text, in evaluation mode."""
        self._check(language, task)
        audio = self._written(waveforms)
        return list(self._ask("loss", audio=audio, texts=list(texts), language=language, task=task))

    def train_lora(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str], language: str, task: str = "asr", **settings: Any
    ) -> dict[str, Any]:
        """Train low-rank updates and nothing else: ``losses`` of the steps, ``trained`` parameters, ``layers``.

        (ESPnet's own ``use_adapter`` leaves every weight trainable: espnet/espnet issue 6107.)

        Args:
            waveforms: the clips.
            texts: what is said in them.
            language: as in `transcribe`.
            task: as in `transcribe`.
            settings: ``roles`` (attention, self_attention, cross_attention, mlp), ``rank``, ``alpha``,
                ``learning_rate``, ``steps``, ``batch``, ``seed``.

        Raises:
            InputError: a role is unknown, or a clip is too long.
        """
        self._check(language, task)
        audio = self._written(waveforms)
        return dict(self._ask("train_lora", audio=audio, texts=list(texts), language=language, task=task, **settings))

    def save(self, directory: Path, source: Path, overwrite: bool = False) -> Path:
        """Write a checkpoint with the updates merged, which ESPnet loads by itself; ``source`` is what was loaded."""
        files = Checkpoint.find(source)
        with new_directory(directory, overwrite) as draft:
            for file in (files.config, files.bpe):
                if file is not None:
                    (draft / file.name).write_bytes(file.read_bytes())
            self._ask("save", weights=str(draft / "model.pth"))
        return directory

    def close(self) -> None:
        """End the process; safe to call again."""
        process = self._process
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def _check(self, language: str, task: str) -> None:
        for word, kind in ((language, "languages"), (task, "tasks")):
            if word not in self.about[kind]:
                known = ", ".join(sorted(self.about[kind])[:12])
                raise InputError(f"this OWSM model has no {word!r} among its {kind}: it has {known}, …")

    def _written(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        paths = [Path(self._folder.name) / f"{place}.npy" for place in range(len(waveforms))]
        for path, waveform in zip(paths, waveforms, strict=True):
            np.save(path, np.asarray(waveform, np.float32))
        return [str(path) for path in paths]

    def _ask(self, op: str, **values: Any) -> Any:
        self._asked += 1
        assert self._process.stdin is not None and self._process.stdout is not None
        line = b""
        with suppress(OSError):
            self._process.stdin.write(json.dumps({"id": self._asked, "op": op, **values}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
        except json.JSONDecodeError as error:
            raise SpeechtuneError(f"the ESPnet process ended during {op} ({self._last_words()}): {HOW}") from error
        if answer.get("id") != self._asked:
            raise SpeechtuneError(f"the ESPnet process answered another question than {op}: start it again")
        if "error" not in answer:
            return answer["result"]
        if answer["kind"] == "ModuleNotFoundError":
            raise InputError(f"ESPnet is not complete in the other environment ({answer['error']}): {HOW}")
        kind = InputError if answer["kind"] == "input" else SpeechtuneError
        raise kind(f"OWSM, {op}: {answer['error']}")

    def _last_words(self) -> str:
        self._log.flush()
        lines = (Path(self._folder.name) / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds the files of one ESPnet checkpoint, in it or below it."""
    if not directory.is_dir() or (directory / "config.json").is_file():
        return False
    try:
        Checkpoint.find(directory)
    except InputError:
        return False
    return True


def is_owsm(name: str) -> bool:
    """Whether a name of the catalogue is one of OWSM's."""
    return any(one.name == name and one.family == "owsm" for one in catalogue().models)


def fetch_owsm(name: str, target: Path, overwrite: bool = False) -> Path:
    """Download an OWSM checkpoint of the catalogue from the Hugging Face hub into ``target``.

    Raises:
        InputError: no network, or the repository has not the files of a checkpoint.
    """
    from speechtune.models import hub

    if not overwrite and target.is_dir():
        Checkpoint.find(target)
        return target
    entry = catalogue().get(name)
    with new_directory(target, overwrite) as draft:
        hub.download_files(hub.HubModel(entry.hub), draft, FILES)
        Checkpoint.find(draft)
        card = {"name": name, "family": "owsm", "source": f"hf:{entry.hub}", "licence": entry.licence.value}
        write_json(draft / "owsm.json", card)
    return target
