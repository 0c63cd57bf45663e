"""OWSM through a worker: the protocol against a stand-in, and ESPnet itself where an environment has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_ctc

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.models import owsm
from speechtune.models.obtaining import get_model, resolve_model
from speechtune.models.owsm import VARIABLE, Checkpoint, OwsmWorker, is_owsm

STAND_IN = """
import json, os, sys
import numpy as np
print("noise of a library", file=sys.stderr)
for line in sys.stdin:
    asked = json.loads(line)
    op, number = asked["op"], asked["id"]
    result = {"hello": {"protocol": PROTOCOL}, "load": {"languages": ["eng"], "tasks": ["asr"], "parameters": 1}}.get(op)
    if op == "transcribe":
        result = [f"{len(np.load(path))} {np.load(path).dtype} {asked['language']} {asked['task']}" for path in asked["audio"]]
    if op == "recognise":
        result = [{"text": "ab", "tokens": 2, "score": -0.5 * asked["beam"]} for path in asked["audio"]]
    if op == "loss":
        sys.exit(3)
    if op == "train_lora":
        print(json.dumps({"id": number, "error": "there is no role 'x': use mlp", "kind": "input"}), flush=True)
    elif op == "save":
        open(asked["weights"], "w").write("weights")
        print(json.dumps({"id": number + WRONG, "result": {}}), flush=True)
    else:
        print(json.dumps({"id": number, "result": result}), flush=True)
"""  # noqa: E501
ESPNET = os.environ.get(VARIABLE)
WORKER = Path(owsm.__file__).with_name("owsm_worker.py")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the files of a checkpoint, in folders as ESPnet's repositories have them."""
    for name in ("exp/s2t/config.yaml", "exp/s2t/valid.pth", "data/token_list/bpe.model"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path / "model"


def stand_in(folder: Path, protocol: int = 1, wrong: int = 0) -> Path:
    script = folder / "stand_in.py"
    script.write_text(STAND_IN.replace("PROTOCOL", str(protocol)).replace("WRONG", str(wrong)))
    return script


def worker(checkpoint: Path, **changes: int) -> OwsmWorker:
    return OwsmWorker(checkpoint, python=sys.executable, script=stand_in(checkpoint.parent, **changes))


def test_arrays_and_words_cross_the_boundary(checkpoint: Path) -> None:
    with worker(checkpoint) as there:
        found = there.transcribe([np.zeros(160), np.ones(7, np.float64)], "eng")
        assert found == ["160 float32 eng asr", "7 float32 eng asr"]
        folder = Path(there._folder.name)
        assert folder.is_dir()
    assert not folder.exists() and there._process.returncode == 0
    there.close()


def test_what_the_other_side_refuses_is_one_sentence(checkpoint: Path) -> None:
    with worker(checkpoint) as there:
        with pytest.raises(InputError, match="no 'fra' among its languages"):
            there.transcribe([np.zeros(1)], "fra")
        with pytest.raises(InputError, match="no 'st_deu' among its tasks"):
            there.transcribe([np.zeros(1)], "eng", "st_deu")
        with pytest.raises(InputError, match="there is no role 'x'"):
            there.train_lora([np.zeros(1)], ["a"], "eng", roles=["x"])
        with pytest.raises(SpeechtuneError, match=r"ended during loss \(noise of a library\)"):
            there.loss([np.zeros(1)], ["a"], "eng")


def test_saving_copies_what_belongs_to_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    with worker(checkpoint) as there:
        saved = Checkpoint.find(there.save(tmp_path / "out", checkpoint))
    assert saved.weights.read_text() == "weights" and saved.config.read_text() == "x" and saved.bpe is not None
    with worker(checkpoint, wrong=1) as there, pytest.raises(SpeechtuneError, match="answered another question"):
        there.save(tmp_path / "other", checkpoint)
    assert not (tmp_path / "other").exists()


def test_a_wrong_environment_is_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"{VARIABLE} is not set: install ESPnet"):
        OwsmWorker(checkpoint)
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(InputError, match="does not start"):
        OwsmWorker(checkpoint)
    with pytest.raises(InputError, match="speaks protocol 2"):
        worker(checkpoint, protocol=2)


@pytest.mark.skipif(find_spec("espnet") is not None, reason="ESPnet is installed beside speechtune here")
def test_the_worker_itself_says_that_espnet_is_missing(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="ESPnet is not complete in the other environment"):
        OwsmWorker(checkpoint, python=sys.executable)


def test_a_folder_without_a_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "exp" / "s2t" / "other.pth").write_text("x")
    with pytest.raises(InputError, match=r"2 files \*\.pth"):
        Checkpoint.find(checkpoint)
    with pytest.raises(InputError, match=r"0 files config\.yaml"):
        Checkpoint.find(tmp_path / "nothing")


def test_models_get_knows_owsm_by_name(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    asked = []

    def fetch(model: object, into: Path, patterns: object) -> None:
        asked.append(str(model))
        shutil.copytree(checkpoint, into, dirs_exist_ok=True)

    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("speechtune.models.hub.download_files", fetch)
    assert is_owsm("owsm-v3.1-small") and not is_owsm("whisper-small")
    got = get_model("owsm-v3.1-small")
    assert (got.family, got.licence, got.already_there) == ("owsm", "CC-BY-4.0", False)
    assert Checkpoint.find(got.path).weights.name == "valid.pth"
    assert get_model("owsm-v3.1-small").already_there and asked == ["hf:espnet/owsm_v3.1_ebf_small"]
    assert resolve_model("owsm-v3.1-small") == got.path == resolve_model(got.path)
    with pytest.raises(InputError, match="run speechtune models get owsm-ctc-v4"):
        resolve_model("owsm-ctc-v4")


def invoked(*words: object) -> tuple[int, str]:
    from typer.testing import CliRunner

    from speechtune.cli.app import build

    done = CliRunner().invoke(build(), [str(word) for word in (*words, "--quiet", "--json")])
    return done.exit_code, done.output


@pytest.fixture
def other_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that runs the stand-in whatever script it is given."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {stand_in(tmp_path)}\n")
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))


@pytest.mark.usefixtures("other_python")
def test_the_verbs_reach_the_other_process(checkpoint: Path, tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab", "ba"))
    code, said = invoked("transcribe", checkpoint, corpus / "audio", "--language", "en", "--beams", 3)
    rows = json.loads(said)["transcripts"]
    assert code == 0 and [row["text"] for row in rows] == ["ab"] * 4
    code, said = invoked("evaluate", checkpoint, corpus, "--split", "dev", "--language", "eng")
    assert code == 0 and json.loads(said)["wer"] == 0.5
    code, said = invoked("evaluate", checkpoint, corpus, "--split", "dev")
    assert code == 2 and "an OWSM model needs a language: set --language" in said
    code, said = invoked("transcribe", checkpoint, corpus / "audio", "--language", "fr")
    assert code == 2 and "no language 'fr'" in said


@pytest.mark.usefixtures("other_python")
def test_what_only_a_model_in_this_process_can_do_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab", "ba"))
    recipe = tiny_ctc.write_recipe(tmp_path / "recipe.yaml", checkpoint, corpus)
    code, said = invoked("train", recipe, "--out", tmp_path / "run")
    assert code == 2 and "OwsmWorker.train_lora" in said and not (tmp_path / "run").exists()
    words = ("--language", "en", "decoding.search.n_best=2", "decoding.beams=2")
    code, said = invoked("transcribe", checkpoint, corpus / "audio", *words)
    assert code == 2 and "do not work with a owsm model" in said


@pytest.mark.usefixtures("other_python")
def test_a_baseline_compares_it_with_others(checkpoint: Path, tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab", "ba", "cab", "dad"))
    other = tiny_ctc.make_ctc(tmp_path / "ctc", "wav2vec2-layer")
    models = f"{checkpoint},{other}"
    code, said = invoked("baseline", corpus, "--models", models, "--out", tmp_path / "search", "--language", "en")
    assert code == 0, said
    assert str(checkpoint) in json.dumps(json.loads(said))


@pytest.mark.skipif(not ESPNET, reason=f"{VARIABLE} names no Python with ESPnet")
def test_espnet_trains_only_the_update_and_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    """A tiny random OWSM: the loss falls by training, merging changes nothing, and the saved model loads."""
    model = tmp_path / "tiny"
    model.mkdir()
    tiny = Path(__file__).parents[1] / "tiny_owsm.py"
    subprocess.run([str(ESPNET), str(tiny), str(WORKER), str(model)], check=True, capture_output=True)
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in (16_000, 24_000)]
    texts = ["abba", "cab d"]
    with OwsmWorker(model) as there:
        assert there.about["languages"] == ["eng", "deu"] and there.about["tasks"] == ["asr", "st_deu"]
        heard = there.transcribe(waves, "eng")
        rows = there.recognise(waves, "eng", beams=5)
        assert [row["text"] for row in rows] == heard and all(row["score"] < 0 for row in rows)
        assert len(there.recognise(waves, "eng", beams=1)) == 2 and there.about["longest_s"] == 2.0
        before = there.loss(waves, texts, "eng")
        assert there.loss(waves[::-1], texts[::-1], "eng")[::-1] == before
        assert there.loss(waves, texts, "deu") != before  # the language token is heard
        done = there.train_lora(waves, texts, "eng", steps=15, batch=2, learning_rate=5e-3, rank=4)
        assert done["layers"] > 0 and 0 < done["trained"] < 0.1 * there.about["parameters"]
        assert done["losses"][-1] < 0.8 * done["losses"][0]
        after = there.loss(waves, texts, "eng")
        there.save(tmp_path / "saved", model)
        assert there.loss(waves, texts, "eng") == pytest.approx(after, rel=1e-4)
        with pytest.raises(InputError, match="longer than the model's 2 s"):
            there.loss([np.zeros(40_000)], ["a"], "eng")
    with OwsmWorker(tmp_path / "saved") as there:
        assert there.loss(waves, texts, "eng") == pytest.approx(after, rel=1e-4)
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab", "ba"))
    code, said = invoked("evaluate", tmp_path / "saved", corpus, "--split", "dev", "--language", "en")
    assert code == 0 and '"wer"' in said
