"""What ``speechtune prepare`` writes, loaded and decoded by ``datasets`` in an environment that can decode.

``datasets`` 4 and later decode through torchcodec, which wants FFmpeg's libraries, so the environment of these tests
cannot do it. ``SPEECHTUNE_DATASETS_PYTHON`` names the interpreter of one that can, for instance of
``python -m venv V && V/bin/pip install "datasets<4" soundfile librosa`` or of one with ``datasets torch torchcodec``.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.prepare.run import prepare_corpus
from speechtune.corpus.table import Corpus, Utterance

TEXTS = [
    'commas, "quotes"; and',
    "None",
    "123",
    "null",
    "👩‍👧 🇮🇱",
    "e\u0301 \u00e9",
    "שלום mixed 12",
    "NA",
    "-5 = cold",
    "a | # %",
]
READ = """
import json, sys
import numpy as np
from datasets import load_dataset
name, place, cache = sys.argv[1:]
where = {"path": "audiofolder", "data_dir": place} if name == "audiofolder" else {"path": place}
loaded = load_dataset(**where, cache_dir=cache)
for split, part in loaded.items():
    for row in part:
        about = row.get("json", row)
        about = json.loads(about) if isinstance(about, (bytes, str)) else about
        sound = row["audio"] if "audio" in row else row["flac"]
        if hasattr(sound, "get_all_samples"):
            samples = sound.get_all_samples()
            rate, samples = samples.sample_rate, samples.data.numpy()[0]
        else:
            rate, samples = sound["sampling_rate"], np.asarray(sound["array"])
        text = row["text"] if "text" in row else row["txt"]
        pcm = np.rint(samples * 32768).astype(int).tolist()
        print(json.dumps([split, about["utterance_id"], text if isinstance(text, str) else text.decode(), rate, pcm]))
"""


@pytest.fixture(scope="module")
def elsewhere() -> str:
    given = os.environ.get("SPEECHTUNE_DATASETS_PYTHON")
    if not given:
        pytest.skip("SPEECHTUNE_DATASETS_PYTHON names no environment whose datasets can decode audio")
    return given


@pytest.mark.parametrize("loader", ["audiofolder", "flac", "parquet", "arrow", "webdataset"])
def test_datasets_decodes_every_clip(tmp_path: Path, elsewhere: str, loader: str) -> None:
    rng, rows, wanted = np.random.default_rng(0), [], {}
    (tmp_path / "in").mkdir()
    for number, text in enumerate(TEXTS):
        pcm = (3000 * rng.standard_normal(1600 + 7 * number)).astype(np.int16)
        name, split = f"u{number}", ("train", "dev", "test")[number % 3]
        soundfile.write(tmp_path / f"in/{name}.wav", pcm, 16_000)
        rows.append(Utterance(utterance_id=name, file_name=f"{name}.wav", text=text, duration_s=len(pcm) / 16_000))
        rows[-1].split = split
        wanted[name] = [split, text, 16_000, pcm.tolist()]
    Corpus(tmp_path / "in", rows).save()
    stored = "flac" if loader == "audiofolder" else loader
    keep = {"unicode": "keep", "invisible": "keep"}
    policy = PreparePolicy.model_validate({"text": keep, "output": {"format": stored, "shard_minutes": 0.002}})
    prepare_corpus(tmp_path / "in", tmp_path / "new", policy)
    words = [elsewhere, "-c", READ, loader, str(tmp_path / "new"), str(tmp_path / "cache")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        words, capture_output=True, text=True, env=environment | {"HF_HUB_OFFLINE": "1"}, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = {name: [split, *rest] for split, name, *rest in map(json.loads, ended.stdout.splitlines())}
    if stored == "flac":  # an audiofolder is one split; the column split says which
        found = {name: [wanted[name][0], *rest] for name, (split, *rest) in found.items() if split == "train"}
    assert found == wanted
