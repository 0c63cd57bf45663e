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
PROTOCOL = 2
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
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other one
            )
        except OSError as error:
            self._folder.cleanup()
            raise InputError(f"{VARIABLE} names {given}, which does not start ({error.strerror}): {HOW}") from error
        try:
            hello = self._ask("hello")
            if hello["protocol"] != PROTOCOL:
                raise InputError(f"the worker speaks protocol {hello['protocol']}, not {PROTOCOL}: use this version's")
            places = {"config": files.config, "weights": files.weights, "bpe": files.bpe}
            paths = {name: place and str(place.resolve()) for name, place in places.items()}
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
        """The text of each mono 16 kHz waveform no longer than the model's window (30 s); see `recognise`."""
        return [row["text"] for row in self.recognise(waveforms, language, task)]

    def recognise(
        self, waveforms: Sequence[np.ndarray], language: str, task: str = "asr", beams: int = 5
    ) -> list[dict[str, Any]]:
        """``text``, ``tokens`` and ``score`` (log-probability) of each waveform.

        Args:
            waveforms: the clips, mono at 16 kHz; silence is put behind each up to the model's window.
            language: ESPnet's three letters, as in ``eng``.
            task: ``asr``, or ``st_deu`` to translate into German.
            beams: hypotheses of the search; OWSM-CTC is decoded greedily whatever it says.

        Raises:
            InputError: the model has no such language or task, or a clip is longer than its window.
        """
        self._check(language, task)
        return list(self._ask("recognise", audio=self._written(waveforms), language=language, task=task, beam=beams))

    def loss(
        self,
        waveforms: Sequence[np.ndarray],
        texts: Sequence[str],
        language: str,
        task: str = "asr",
        *,
        together: bool = False,
    ) -> list[float]:
        """ESPnet's loss of each clip with its text (see `step`), in evaluation mode; ``together``: of the batch."""
        self._check(language, task)
        values = {"language": language, "task": task, "together": together}
        return list(self._ask("loss", audio=self._written(waveforms), texts=list(texts), **values))

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without those of language and task."""
        return list(self._ask("tokens", texts=list(texts)))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self._ask("text", tokens=list(tokens)))

    def adapt(self, roles: Sequence[str], rank: int = 16, alpha: float = 32.0, **settings: Any) -> dict[str, Any]:
        """Put low-rank updates on the layers that play the roles, freeze all else; ``trained`` and ``layers``.

        (ESPnet's own ``use_adapter`` leaves every weight trainable: espnet/espnet issue 6107.)

        Args:
            roles: of attention, self_attention, cross_attention, mlp, encoder, decoder.
            rank: of the updates.
            alpha: they are multiplied by alpha / rank.
            settings: ``dropout`` on their input, ``seed`` of their start, ``betas``, ``eps`` and ``weight_decay`` of
                AdamW, ``max_grad_norm``, and ``bf16`` for arithmetic under autocast.

        Raises:
            InputError: a role is unknown or no layer plays it.
        """
        return dict(self._ask("adapt", roles=list(roles), rank=rank, alpha=alpha, **settings))

    def step(
        self,
        waveforms: Sequence[np.ndarray],
        texts: Sequence[str],
        language: str,
        task: str = "asr",
        *,
        learning_rate: float,
        sizes: Sequence[int] | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        """One optimiser step after `adapt`; ``loss`` and ``grad_norm`` (before clipping).

        ``loss`` is the mean over the clips of ESPnet's loss of each: the sum over its tokens of the cross-entropy,
        and its CTC loss, by the checkpoint's weights. Where one of both numbers is not finite, nothing was changed.

        Args:
            waveforms: the clips.
            texts: what is said in them.
            language: as in `recognise`.
            task: as in `recognise`.
            learning_rate: of this step.
            sizes: clips of each micro-batch, in order; ``None``: one micro-batch.
            seed: of the dropout.
        """
        self._check(language, task)
        audio = self._written(waveforms)
        values = {"sizes": list(sizes or [len(audio)]), "learning_rate": learning_rate, "seed": seed}
        found = self._ask("step", audio=audio, texts=list(texts), language=language, task=task, **values)
        return {name: float(value) for name, value in found.items()}

    def train_lora(
        self,
        waveforms: Sequence[np.ndarray],
        texts: Sequence[str],
        language: str,
        task: str = "asr",
        *,
        roles: Sequence[str] = ("attention", "mlp"),
        learning_rate: float = 1e-4,
        steps: int = 100,
        batch: int = 4,
        seed: int = 0,
        **settings: Any,
    ) -> dict[str, Any]:
        """Train low-rank updates on clips in memory: ``losses`` of the steps, and what `adapt` says.

        Every clip is shown once before one is shown again.

        Raises:
            InputError: see `adapt` and `step`.
        """
        self._check(language, task)
        about = self.adapt(roles, seed=seed, **settings)
        rng, drawn, losses = np.random.default_rng(seed), list[int](), []
        for number in range(steps):
            while len(drawn) < batch:
                drawn += rng.permutation(len(waveforms)).tolist()
            places, drawn = drawn[:batch], drawn[batch:]
            shown = [waveforms[place] for place in places], [texts[place] for place in places]
            losses.append(self.step(*shown, language, task, learning_rate=learning_rate, seed=seed + number)["loss"])
        return {"losses": losses, **about}

    def keep(self, file: Path) -> None:
        """Write the updates and the optimiser's state to a file, whole or not at all."""
        draft = file.with_name(file.name + ".part").resolve()
        self._ask("keep", path=str(draft))
        draft.replace(file)

    def go_back(self, file: Path) -> None:
        """Take the updates and the optimiser's state that `keep` wrote; the model was adapted in the same way."""
        self._ask("go_back", path=str(file.resolve()))

    def save(self, directory: Path, source: Path, overwrite: bool = False) -> Path:
        """Write a checkpoint with the updates merged, which ESPnet loads by itself; ``source`` is what was loaded.

        Feature statistics that ``config.yaml`` names by a relative path lie at that path in the directory.
        """
        files = Checkpoint.find(source)
        with new_directory(directory, overwrite) as draft:
            for file in (files.config, files.bpe):
                if file is not None:
                    (draft / file.name).write_bytes(file.read_bytes())
            for name in self.about.get("beside", []):
                found = next(one / name for one in files.config.resolve().parents if (one / name).is_file())
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(found.read_bytes())
            self._ask("save", weights=str((draft / "model.pth").resolve()))
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
