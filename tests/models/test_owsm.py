"""OWSM through a worker: the protocol against a stand-in, and ESPnet itself where an environment has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in_owsm
import tiny_ctc
import torch

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.models import owsm
from speechtune.models.obtaining import get_model, resolve_model
from speechtune.models.owsm import VARIABLE, Checkpoint, OwsmWorker, is_owsm
from speechtune.models.owsm_family import OwsmFamily

ESPNET = os.environ.get(VARIABLE)
WORKER = Path(owsm.__file__).with_name("owsm_worker.py")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the files of a checkpoint, in folders as ESPnet's repositories have them."""
    return stand_in_owsm.write_checkpoint(tmp_path / "model")


def worker(checkpoint: Path, **changes: int) -> OwsmWorker:
    script = stand_in_owsm.write_script(checkpoint.parent / "stand_in.py", **changes)
    return OwsmWorker(checkpoint, python=sys.executable, script=script)


def test_arrays_and_words_cross_the_boundary(checkpoint: Path) -> None:
    with worker(checkpoint) as there:
        assert there.transcribe([np.zeros(160), np.ones(7, np.float64)], "eng") == ["ab", "ab"]
        asked = stand_in_owsm.asked(checkpoint)[-1]
        assert (asked["lengths"], asked["dtypes"]) == ([160, 7], ["float32", "float32"])
        assert (asked["op"], asked["language"], asked["task"], asked["beam"]) == ("recognise", "eng", "asr", 5)
        folder = Path(there._folder.name)
        assert folder.is_dir()
    assert not folder.exists() and there._process.returncode == 0
    there.close()


def test_what_the_other_side_refuses_is_one_sentence(checkpoint: Path) -> None:
    with worker(checkpoint) as there:
        with pytest.raises(InputError, match="no 'fra' among its languages"):
            there.transcribe([np.zeros(1)], "fra")
        with pytest.raises(InputError, match="no 'st_fra' among its tasks"):
            there.transcribe([np.zeros(1)], "eng", "st_fra")
        with pytest.raises(InputError, match="there is no role 'x'"):
            there.train_lora([np.zeros(1)], ["a"], "eng", roles=["x"])
        with pytest.raises(SpeechtuneError, match=r"ended during loss \(noise of a library\)"):
            there.loss([np.zeros(1)], ["die"], "eng")


def test_training_in_memory_shows_every_clip_before_one_again(checkpoint: Path) -> None:
    waves = [np.ones(size) for size in (1, 2, 3)]
    with worker(checkpoint) as there:
        done = there.train_lora(waves, ["a", "b", "c"], "eng", steps=3, batch=2, learning_rate=0.5, rank=4)
    assert done == {"losses": [3.0, 1.5, 1.0], "trained": 10, "layers": 2}
    adapt, *steps = [one for one in stand_in_owsm.asked(checkpoint) if one["op"] in ("adapt", "step")]
    assert (adapt["roles"], adapt["rank"], adapt["seed"]) == (["attention", "mlp"], 4, 0)
    shown = [length for one in steps for length in one["lengths"]]
    assert sorted(shown[:3]) == sorted(shown[3:]) == [1, 2, 3]
    assert all(
        "abc"[length - 1] == text for one in steps for length, text in zip(one["lengths"], one["texts"], strict=True)
    )


def test_saving_copies_what_belongs_to_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    with worker(checkpoint) as there:
        saved = Checkpoint.find(there.save(tmp_path / "out", checkpoint))
    assert saved.weights.read_text().startswith("{") and saved.config.read_text() == "x" and saved.bpe is not None
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
    with pytest.raises(InputError, match="speaks protocol 1"):
        worker(checkpoint, protocol=1)


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
    monkeypatch.setenv(VARIABLE, str(stand_in_owsm.write_python(tmp_path / "python")))


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
    words = ("--language", "en", "decoding.search.n_best=2", "decoding.beams=2")
    code, said = invoked("transcribe", checkpoint, corpus / "audio", *words)
    assert code == 2 and "do not work with a owsm model" in said
    code, said = invoked(
        "transcribe", checkpoint, corpus / "audio", "--language", "en", "decoding.search.task=translate"
    )
    assert code == 2 and "do not work with a owsm model" in said


@pytest.mark.usefixtures("other_python")
def test_a_pair_of_languages_translates(checkpoint: Path, tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab",))
    assert invoked("transcribe", checkpoint, corpus / "audio", "--language", "en:de")[0] == 0
    asked = stand_in_owsm.asked(checkpoint)[-1]
    assert (asked["language"], asked["task"]) == ("eng", "st_deu")
    code, said = invoked("evaluate", checkpoint, corpus, "--split", "dev", "--language", "en:de")
    assert code == 0 and stand_in_owsm.asked(checkpoint)[-1]["task"] == "st_deu"
    code, said = invoked("transcribe", checkpoint, corpus / "audio", "--language", "en:fr")
    assert code == 2 and "does not translate into 'fr': it knows deu" in said


@pytest.mark.usefixtures("other_python")
def test_ctc_has_no_beams_and_places_for_its_tokens(tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab",))
    checkpoint = stand_in_owsm.write_checkpoint(tmp_path / "ctc")
    code, said = invoked("transcribe", checkpoint, corpus / "audio", "--language", "en", "--beams", 3)
    assert code == 2 and "OWSM-CTC is decoded greedily" in said
    with closing(OwsmFamily.load(checkpoint, language="en").worker) as there:
        family = OwsmFamily(there, "en")
        assert family.refusal(1.0, family.tokens("ab" * 11)[0]) is None  # 22 and language and task: 24 of 25 frames
        assert family.refusal(1.0, family.tokens("ab" * 11 + "c")[0]) is None
        assert "26 (the model has 25" in str(family.refusal(1.0, family.tokens("ab" * 12)[0]))
        assert "26 (the model has 25" in str(family.refusal(1.0, family.tokens("a" * 12 + "b")[0]))  # 15 and 11 between
        assert family.text(family.tokens("ab")[0]) == "ab"


@pytest.mark.usefixtures("other_python")
def test_a_baseline_compares_it_with_others(checkpoint: Path, tmp_path: Path) -> None:
    corpus = tiny_ctc.write_tones(tmp_path / "tones", ("ab", "ba", "cab", "dad"))
    other = tiny_ctc.make_ctc(tmp_path / "ctc", "wav2vec2-layer")
    models = f"{checkpoint},{other}"
    code, said = invoked("baseline", corpus, "--models", models, "--out", tmp_path / "search", "--language", "en")
    assert code == 0, said
    assert str(checkpoint) in json.dumps(json.loads(said))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random checkpoints made by ESPnet: ``""`` with a decoder, ``"ctc"``."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(f"owsm{kind}")
            script(made[kind], *filter(None, [kind]))
        return made[kind]

    return make


def script(directory: Path, *words: object) -> str:
    """Run ``tiny_owsm.py`` by ESPnet's Python; what it prints."""
    file = Path(__file__).parents[1] / "tiny_owsm.py"
    command = [str(ESPNET), str(file), str(WORKER), str(directory), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def clips() -> tuple[list[np.ndarray], list[str]]:
    rng = np.random.default_rng(0)
    sizes = (16_000, 24_000)
    return [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in sizes], ["abba", "cab d"]


def alone(clips_file: Path, *directories: Path) -> list[dict[str, Any]]:
    """What ESPnet says of checkpoints by itself."""
    first, *others = directories
    return [json.loads(line) for line in script(first, "says", clips_file, *others).splitlines() if line[:1] == "{"]


@pytest.mark.parametrize("kind", ["", "ctc"])
@pytest.mark.skipif(not ESPNET, reason=f"{VARIABLE} names no Python with ESPnet")
def test_espnet_trains_only_the_update_and_what_is_saved_is_what_was_trained(
    tiny: Callable[[str], Path], kind: str, tmp_path: Path
) -> None:
    """The loss falls by training, merging changes nothing, all else stays, and ESPnet alone says the same."""
    model, (waves, texts) = tiny(kind), clips()
    np.savez(tmp_path / "clips.npz", wave0=waves[0], wave1=waves[1], texts=np.array(texts))
    with OwsmWorker(model) as there:
        about = there.about
        assert (about["languages"], about["tasks"]) == (["eng", "deu"], ["asr", "st_deu"])
        assert (about["ctc"], about["longest_s"]) == (kind == "ctc", 2.0)
        rows = there.recognise(waves, "eng", beams=5)
        assert [row["text"] for row in rows] == there.transcribe(waves, "eng")
        assert all(row["score"] < 0 for row in rows) and len(there.recognise(waves, "eng", beams=1)) == 2
        before = there.loss(waves, texts, "eng")
        assert there.loss(waves[::-1], texts[::-1], "eng")[::-1] == before
        assert there.loss(waves, texts, "eng", together=True) == pytest.approx([np.mean(before)], rel=1e-5)
        assert there.loss(waves, texts, "deu") != before  # the language token is heard
        assert there.loss(waves, texts, "eng", "st_deu") != before  # and the task
        assert there.text(there.tokens(texts)[1]) == "cab d"
        done = there.train_lora(waves, texts, "eng", steps=30, batch=2, learning_rate=5e-3, rank=4, roles=["attention"])
        assert done["layers"] > 0 and 0 < done["trained"] < 0.1 * about["parameters"]
        assert done["losses"][0] == pytest.approx(np.mean(before), rel=1e-5)  # an update begins at zero
        assert done["losses"][-1] < 0.8 * done["losses"][0]
        after, heard = there.loss(waves, texts, "eng"), there.transcribe(waves, "eng")
        there.save(tmp_path / "saved", model)
        assert there.loss(waves, texts, "eng") == pytest.approx(after, rel=1e-4)
        for work in (lambda wave: there.loss([wave], ["a"], "eng"), lambda wave: there.transcribe([wave], "eng")):
            with pytest.raises(InputError, match="longer than the model's 2 s"):
                work(np.zeros(40_000))
    base, saved = alone(tmp_path / "clips.npz", model, tmp_path / "saved")
    assert all(base["texts"]) or not kind  # the random OWSM-CTC writes letters
    assert base["texts"] == [row["text"] for row in rows] and base["loss"] == pytest.approx(np.mean(before), rel=1e-5)
    assert saved["texts"] == heard and saved["loss"] == pytest.approx(np.mean(after), rel=1e-4)
    old, new = (torch.load(Checkpoint.find(one).weights) for one in (model, tmp_path / "saved"))
    assert list(old) == list(new)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    attention = {name for name in old if name.endswith("weight") and "attn.linear_" in name}
    # the prompt is one token, so what listens to it has nothing to choose from: no gradient for queries and keys
    idle = {name for name in attention if ("prompt_" in name or "cross_attn" in name) and name[-8] in "qk"}
    assert moved == attention - idle


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        # two encoder blocks and one decoder block of 4 projections; a decoder block has also 4 to the encoder, and 2 of
        # its feed-forward
        ("", {"cross_attention": 4, "self_attention": 12, "decoder": 10}),
        ("ctc", {"cross_attention": 4, "self_attention": 12, "decoder": 0}),  # the second block listens to the prompt
    ],
)
@pytest.mark.skipif(not ESPNET, reason=f"{VARIABLE} names no Python with ESPnet")
def test_roles_and_steps(tiny: Callable[[str], Path], kind: str, counts: dict[str, int], tmp_path: Path) -> None:
    """A role's layers are those counted by hand; a step is the same however it is cut; going back goes back."""
    waves, texts = clips()
    waves, texts = [*waves, waves[0][::-1].copy()], [*texts, "b"]
    with OwsmWorker(tiny(kind)) as there:
        for role, count in counts.items():
            if count:
                assert there.adapt([role], rank=2)["layers"] == count
                there.save(tmp_path / role, tiny(kind))
            else:
                with pytest.raises(InputError, match=f"no layer plays the role {role}"):
                    there.adapt([role], rank=2)
        there.adapt(["mlp", "encoder"], rank=4, seed=1)
        there.keep(tmp_path / "start.pt")
        found = []
        for sizes in ([3], [1, 2]):
            there.go_back(tmp_path / "start.pt")
            steps = [there.step(waves, texts, "eng", learning_rate=1e-2, sizes=sizes) for _ in range(2)]
            found.append([*steps[0].values(), *steps[1].values(), *there.loss(waves, texts, "eng")])
        there.save(tmp_path / "cut", tiny(kind))
        there.adapt(["mlp"], rank=4, dropout=0.9)
        there.step(waves, texts, "eng", learning_rate=1e-2, seed=1)
        drawn = [there.step(waves, texts, "eng", learning_rate=0.0, seed=seed)["loss"] for seed in (1, 2, 1)]
        assert drawn[0] == drawn[2] != drawn[1]  # the update is dropped in training, by the seed,
        assert there.recognise(waves, "eng") == there.recognise(waves, "eng")  # and never when it is asked for texts
    assert found[0] == pytest.approx(found[1], rel=1e-4) and found[0][2] < found[0][0]
