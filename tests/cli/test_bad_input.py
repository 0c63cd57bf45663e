"""Every kind of bad input, from the command line: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechtune.corpus.table import Corpus

Command = Callable[..., subprocess.CompletedProcess[str]]


def tone(seconds: float = 0.5, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.2 * np.sin(np.arange(round(seconds * rate_hz)) * 440 * 2 * np.pi / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good clips in the ``audiofolder`` layout."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        soundfile.write(source / f"{name}.flac", tone(), 16_000)
    write_rows(source, [{"file_name": "a.flac", "text": "one"}, {"file_name": "b.flac", "text": "two"}])
    return source


def write_rows(source: Path, rows: list[dict[str, Any]]) -> None:
    (source / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def add(source: Path, name: str, text: str = "three", **columns: Any) -> Path:
    with (source / "metadata.jsonl").open("a") as stream:
        stream.write(json.dumps({"file_name": name, "text": text, **columns}) + "\n")
    return source / name


def refused(done: subprocess.CompletedProcess[str], *parts: str, out: Path) -> None:
    """Exit code 2, one sentence that holds every part, and no trace of ``out``."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("speechtune: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in lines[0], lines[0]
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]


def missing_file(source: Path) -> str:
    add(source, "gone.wav")
    return "gone.wav"


def truncated_flac(source: Path) -> str:
    path = add(source, "cut.flac")
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.3, 0.3, 32_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "cut.flac"


def zero_length(source: Path) -> str:
    soundfile.write(add(source, "nothing.wav"), np.zeros(0), 16_000)
    return "nothing.wav"


def zero_bytes(source: Path) -> str:
    add(source, "empty.wav").write_bytes(b"")
    return "empty.wav"


def text_renamed(source: Path) -> str:
    add(source, "letter.wav").write_text("Dear reader, this is not audio.")
    return "letter.wav"


def not_a_number(source: Path) -> str:
    samples = tone()
    samples[100] = np.nan
    soundfile.write(add(source, "nan.wav"), samples, 16_000, subtype="FLOAT")
    return "nan.wav"


def empty_transcript(source: Path) -> str:
    soundfile.write(add(source, "silent.wav", text="   "), tone(), 16_000)
    return "metadata.jsonl line 3: its transcript is empty"


def duplicate_ids(source: Path) -> str:
    soundfile.write(add(source, "c.wav", utterance_id="same"), tone(), 16_000)
    soundfile.write(add(source, "d.wav", utterance_id="same"), tone(), 16_000)
    return "same"


def audio_without_a_row(source: Path) -> str:
    soundfile.write(source / "orphan.wav", tone(), 16_000)
    return "orphan.wav"


FAULTS = [
    missing_file,
    truncated_flac,
    zero_length,
    zero_bytes,
    text_renamed,
    not_a_number,
    empty_transcript,
    duplicate_ids,
    audio_without_a_row,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_import_refuses_and_writes_nothing_or_counts_what_it_drops(
    speechtune: Command, folder: Path, tmp_path: Path, fault: Callable[[Path], str]
) -> None:
    name, out = fault(folder), tmp_path / "corpus"
    refused(speechtune("import", folder, "--out", out), name, "--drop-bad", out=out)
    done = speechtune("import", folder, "--out", out, "--drop-bad", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert sum(result["dropped_by_reason"].values()) == 1
    assert result["kept"] == (3 if fault is duplicate_ids else 2)


def test_import_takes_ninety_six_kilohertz_and_six_channels(speechtune: Command, folder: Path, tmp_path: Path) -> None:
    """Not bad input: any rate and channel count becomes 16 kHz mono."""
    soundfile.write(add(folder, "surround.wav"), tone(rate_hz=96_000, channels=6), 96_000)
    assert speechtune("import", folder, "--out", tmp_path / "corpus").returncode == 0
    corpus = Corpus.load(tmp_path / "corpus")
    heard, rate_hz = soundfile.read(corpus.path_of(corpus.utterances[2]))
    assert (rate_hz, heard.shape) == (16_000, (8_000,))
    spectrum = np.abs(np.fft.rfft(heard))
    assert int(spectrum.argmax()) == 220


def test_an_output_that_cannot_be_written(speechtune: Command, folder: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = speechtune("import", folder, "--out", blocked / "corpus")
    assert done.returncode == 2
    assert f"{blocked}" in done.stderr
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep")
    done = speechtune("import", folder, "--out", taken)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(
    speechtune: Command, folder: Path, small_disk: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(add(folder, "long.wav"), rng.uniform(-0.5, 0.5, 16_000 * 25), 16_000)
    refused(speechtune("import", folder, "--out", small_disk / "c"), "disk is full", out=small_disk / "c")
    assert not list(small_disk.iterdir())
    done = speechtune("train", write_recipe(), "--out", small_disk / "run", "--quiet")
    assert done.returncode == 2
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text", "part"),
    [(3.5, "too long", "is too long, 3.50 s"), (0.5, "the " * 90, "has too many tokens")],
    ids=["clip longer than the window", "transcript over the token limit"],
)
def test_training_refuses_what_the_model_cannot_take(
    speechtune: Command,
    folder: Path,
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    seconds: float,
    text: str,
    part: str,
) -> None:
    soundfile.write(add(folder, "c.wav", text=text), tone(seconds), 16_000)
    corpus = tmp_path / "corpus"
    assert speechtune("import", folder, "--out", corpus, "--language", "en").returncode == 0
    loaded = Corpus.load(corpus)
    for utterance in loaded:
        utterance.split = "dev" if utterance.utterance_id == "a" else "train"
    loaded.save()
    out = tmp_path / "run"
    recipe = write_recipe(data={"corpus": str(corpus)})
    refused(
        speechtune("train", recipe, "--out", out), "utterance c (audio/c.flac)", part, "data.unusable=drop", out=out
    )
    done = speechtune("train", recipe, "--out", out, "data.unusable=drop", "training.epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    dropped = json.loads((out / "provenance.json").read_text())["data"]["dropped_by_reason"]
    assert sum(dropped.values()) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["transcribe", "MODEL", "nowhere.wav"], "nowhere.wav"),
        (["transcribe", "nowhere", "SOURCE"], "nowhere"),
        (["evaluate", "MODEL", "SOURCE"], "run speechtune import on it first"),
        (["transcribe", "MODEL", "SOURCE", "--context", "half"], "use fit or full"),
        (["report", "SOURCE"], "SOURCE"),
        (["split", "SOURCE"], "SOURCE"),
        (["score", "SOURCE", "none.jsonl"], "SOURCE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_verbs_say_what_is_wrong(
    speechtune: Command, tiny_model: Path, folder: Path, words: list[str], part: str
) -> None:
    names = {"MODEL": str(tiny_model), "SOURCE": str(folder)}
    done = speechtune(*[names.get(word, word) for word in words])
    assert done.returncode == 2, done.stderr
    assert names.get(part, part) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("fault", [truncated_flac, zero_length, text_renamed, not_a_number], ids=lambda f: f.__name__)
def test_transcribe_names_the_file(
    speechtune: Command, tiny_model: Path, folder: Path, tmp_path: Path, fault: Callable[[Path], str]
) -> None:
    name, out = fault(folder), tmp_path / "said.jsonl"
    refused(speechtune("transcribe", tiny_model, folder / name, "--out", out), name, out=out)


def test_a_read_only_place_is_named(speechtune: Command, folder: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    refused(speechtune("import", folder, "--out", place / "c"), str(place), out=place / "c")
