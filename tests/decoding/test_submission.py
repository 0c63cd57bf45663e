"""A package is what its runtime needs, and a rehearsal finds what is wrong with one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.audio.io import write_audio
from speechtune.audio.mel import LogMel
from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import open_model
from speechtune.decoding.submission.building import build_package
from speechtune.decoding.submission.checking import check_ids, check_output
from speechtune.decoding.submission.config import PackageSettings
from speechtune.decoding.submission.rehearsal import Limits, Verdict, _check_source, project, rehearse
from speechtune.decoding.submission.runtime import audio
from speechtune.decoding.submission.runtime.text import ByteLevelText
from speechtune.decoding.submission.sample import BROKEN, LONG, SILENT, Sample, write_sample
from speechtune.decoding.submission.verb import SubmitOptions, submit

KEY = "orthographic_text"

GOOD = """
import json
from pathlib import Path
rows = [json.loads(line) for line in Path("data/submission_format.jsonl").read_text().splitlines()]
silent = ("U_rehearsal_silence", "U_rehearsal_broken")
said = [{"utterance_id": row["utterance_id"],
         "orthographic_text": "" if row["utterance_id"] in silent else "caf\\u00e9"} for row in rows]
FAULT
data = "".join(json.dumps(row, ensure_ascii=False) + "\\n" for row in said).encode()
LATER
Path("submission/submission.jsonl").write_bytes(data)
print('stats {"utterances": 6, "seconds_of_audio": 10.0, "load_s": 1.0, "decode_s": 2.0, "engine": "none"}')
"""
NETWORK = "import urllib.request\ntry: urllib.request.urlopen('http://example.com', timeout=2)\nexcept OSError: pass"
FAULTS = {
    "none": ("", "", None),
    "missing": ("said = said[1:]", "", "format: 1 ids are missing"),
    "extra": ("said.append({**said[0], 'utterance_id': 'U_x'})", "", "format: 1 ids are not asked for, as in U_x"),
    "twice": ("said.append(said[0])", "", "format: 1 ids stand there twice"),
    "order": ("said[0], said[1] = said[1], said[0]", "", "format: the ids are not in the order of the format file"),
    "mark": ("", "data = b'\\xef\\xbb\\xbf' + data", "format: it begins with a byte order mark"),
    "latin": ("", "data = data.decode().encode('latin-1')", "format: it is not valid UTF-8"),
    "null": ("said[1]['orthographic_text'] = None", "", "format: line 2 has None for a text"),
    "json": ("", "data = data[:-3]", "format: "),
    "key": ("said[0]['score'] = 1", "", "format: line 1 must have utterance_id and orthographic_text and nothing"),
    "silence": (
        "for row in said: row['orthographic_text'] = 'you'",
        "",
        "texts: U_rehearsal_silence is to have an empty",
    ),
    "mute": ("for row in said: row['orthographic_text'] = ''", "", "texts: not one clip has a text"),
    "network": (NETWORK, "", "network: it tried to reach the network"),
    "speechtune": ("try:\n import speechtune\nexcept ImportError: pass", "", "self_contained: it needs speechtune"),
    "error": ("raise SystemExit(3)", "", "run: main.py ended with exit code 3"),
    "data": ("Path('data/audio/new').write_text('x')", "", "run: main.py changed the data folder"),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample") / "data", None, 3, 0, KEY, window_s=3.0)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str, sample: Sample, tmp_path: Path) -> None:
    fault, later, expected = FAULTS[name]
    package = tmp_path / "p.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("main.py", GOOD.replace("FAULT", fault).replace("LATER", later))
    verdict = rehearse(package, sample, Limits(), KEY, None)
    if expected is None:
        assert verdict.passed and verdict.problems == [] and all(verdict.checks.values()), verdict
    else:
        assert not verdict.passed and any(one.startswith(expected) for one in verdict.problems), verdict.problems


def test_limits_of_size_and_time_and_the_place_of_main(sample: Sample, tmp_path: Path) -> None:
    package = tmp_path / "p.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("main.py", GOOD.replace("FAULT", "").replace("LATER", ""))
        archive.writestr("model/weights", bytes(3_000))
    small = rehearse(package, sample, Limits(size_gib=1e-6), KEY, None)
    assert not small.checks["archive"] and "GiB" in small.problems[0]
    slow = rehearse(package, sample, Limits(hours=80.0, utterances=214_274, mean_s=7.0), KEY, None)
    assert slow.projected_hours == pytest.approx((1 + 2 / 10 * 7 * 214_274) / 3600, abs=1e-3)
    assert not slow.checks["time"] and "80 h are allowed" in slow.problems[-1]
    assert rehearse(package, sample, Limits(hours=80.0, mean_s=7.0, speedup=2.0), KEY, None).passed
    short = {"utterances": 100, "seconds_of_audio": 10.0, "load_s": 0.0, "decode_s": 36.0}
    assert project(short, Limits(utterances=10_000, mean_s=0.001)) == 1.0  # very short clips: by their number
    nested = tmp_path / "nested.zip"
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("submission/main.py", "")
    assert "no main.py at its root" in rehearse(nested, sample, Limits(), KEY, None).problems[0]


def test_differences_from_the_source_model_are_found(sample: Sample, tmp_path: Path) -> None:
    package = tmp_path / "p.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("main.py", GOOD.replace("FAULT", "").replace("LATER", ""))
    same = dict.fromkeys(sample.waveforms, "café")
    assert rehearse(package, sample, Limits(), KEY, same).checks["same_as_source"]
    other = rehearse(package, sample, Limits(), KEY, {**same, next(iter(same)): "garbage"})
    assert not other.checks["same_as_source"] and "1 of 3 texts are not the model's own" in other.problems[0]


@pytest.mark.parametrize(("moved", "passes"), [(0, True), (3, True), (8, False)])
def test_a_word_here_and_there_is_not_another_model(moved: int, passes: bool) -> None:
    source = {str(number): "we are both twelve years old" for number in range(24)}
    said = {name: "we're both twelve years old" if int(name) < moved else text for name, text in source.items()}
    measured: dict[str, Any] = {}
    assert (_check_source(said, source, measured) == []) is passes
    assert measured["same_text_share"] == pytest.approx(1 - moved / 24, abs=1e-3)


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_a_built_package_passes_its_rehearsal(
    engine: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "ctranslate2":
        pytest.importorskip("ctranslate2")
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path / "home"))
    options = SubmitOptions(
        out=tmp_path / "s.zip",
        settings=PackageSettings(engine=engine, dtype="float32", batch_size=4),  # type: ignore[arg-type]
        limits=Limits(hours=1e6),
        corpus=tiny_corpus,
        clips=6,
        opening={"context": "full", "overrides": ["decoding.max_new_tokens=8"]},
    )
    result, told = submit(str(tiny_model), options)
    assert result["passed"] and result["exit_code"] == 0, (result["problems"], result["log_tail"])
    assert result["measured"]["same_text_share"] == 1.0 and result["measured"]["failed"] == 1
    assert result["measured"]["utterances"] == 9 and "fit to be handed in" in told
    assert json.loads((tmp_path / "s.zip.verdict.json").read_text())["passed"]
    with zipfile.ZipFile(options.out) as archive:
        names = archive.namelist()
        code = "".join(archive.read(name).decode() for name in names if name.endswith(".py"))
    assert "main.py" in names and "import speechtune" not in code and "from speechtune" not in code
    with pytest.raises(InputError, match="add --overwrite"):
        submit(str(tiny_model), options)


def test_the_same_model_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_package(open_model(str(tiny_model)), tmp_path / f"{name}.zip", PackageSettings())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    opened = open_model(str(tiny_model))
    before = {name: one.clone() for name, one in opened.family.model.state_dict().items()}
    build_package(opened, tmp_path / "c.zip", PackageSettings(dtype="bfloat16"))
    after = opened.family.model.state_dict()
    assert all((before[name] == after[name]).all() and before[name].dtype == after[name].dtype for name in before)
    with pytest.raises(InputError, match="speechtune soup"):
        build_package(open_model(f"{tiny_model}+{tiny_model}"), tmp_path / "d.zip", PackageSettings())
    searched = open_model(str(tiny_model), overrides=["decoding.search.no_repeat_ngram=3"])
    with pytest.raises(InputError, match="greedily or by plain beam search"):
        build_package(searched, tmp_path / "d.zip", PackageSettings())


def test_features_without_torch_are_the_same() -> None:
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(0, 0.1, size).astype(np.float32) for size in (7_000, 15_999, 16_000)]
    for n_frames in (100, 312, 3_000):
        theirs = LogMel()(waveforms, n_frames).numpy()
        assert np.abs(audio.log_mel(waveforms, n_frames, LogMel().filters) - theirs).max() < 1e-4


def test_text_without_a_tokenizer_library_is_the_same(tiny_model: Path) -> None:
    from tokenizers import Tokenizer

    path = tiny_model / "tokenizer.json"
    reference = Tokenizer.from_file(str(path))
    end = reference.token_to_id("<|endoftext|>")
    ours = ByteLevelText(path, end)
    for text in (" the thing", "naïve Ünïcode 中文 🎉", " a  b "):
        ids = reference.encode(text, add_special_tokens=False).ids
        assert ours([*ids, end, end + 5]) == reference.decode(ids).strip() == text.strip()


def test_long_clips_are_cut_in_their_pauses() -> None:
    speech = np.random.default_rng(0).normal(0, 0.2, 100_000).astype(np.float32)
    speech[40_000:42_000] = 0.0
    parts = audio.pieces(speech, 48_000)
    assert np.array_equal(np.concatenate(parts), speech) and max(map(len, parts)) <= 48_000
    assert 40_000 <= len(parts[0]) <= 42_000
    assert audio.loudest_dbfs(np.zeros(50, np.float32)) < -150 and audio.loudest_dbfs(np.ones(900, np.float32)) == 0


def test_a_sample_has_the_three_hard_cases(sample: Sample, tiny_corpus: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (sample.folder / "utterance_metadata.jsonl").read_text().splitlines()]
    assert {SILENT, BROKEN, LONG} < {row["utterance_id"] for row in rows} and len(rows) == 6
    order = [json.loads(line)["utterance_id"] for line in (sample.folder / "submission_format.jsonl").open()]
    assert sorted(order) == sorted(row["utterance_id"] for row in rows)
    real = write_sample(tmp_path / "data", Corpus.load(tiny_corpus), 5, 1, KEY, window_s=3.0)
    assert len(real.waveforms) == len(real.texts) == 5 and real.seconds_of_audio > 1


def test_ids_and_output_are_judged_alone(tmp_path: Path) -> None:
    assert check_ids(["a", "b"], [{"utterance_id": "a"}, {"utterance_id": "b"}]) == []
    assert "order" in check_ids(["a", "b"], [{"utterance_id": "b"}, {"utterance_id": "a"}])[0]
    (tmp_path / "format.jsonl").write_text('{"utterance_id": "a"}\n')
    assert check_output(tmp_path / "format.jsonl", tmp_path / "none.jsonl") == ["none.jsonl was not written"]
    (tmp_path / "o.jsonl").write_text('{"utterance_id": "a", "orthographic_text": "x\\u2028y"}')
    assert check_output(tmp_path / "format.jsonl", tmp_path / "o.jsonl") == ["its last line has no end"]
    write_audio(tmp_path / "x.wav", np.zeros(100, np.float32))
    assert Verdict(True, [], {}, 1).to_json()["passed"] is True


def test_a_second_start_goes_on_and_a_bad_batch_costs_one_clip(
    tiny_model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechtune.decoding.submission.runtime import main as runtime

    package = tmp_path / "s.zip"
    opened = open_model(str(tiny_model), overrides=["decoding.max_new_tokens=6"])
    build_package(opened, package, PackageSettings(dtype="float32", batch_size=2))
    root = tmp_path / "code_execution"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(root / "src")
    (root / "data").symlink_to(sample.folder)
    monkeypatch.chdir(root)
    monkeypatch.setattr(runtime, "HERE", root / "src")
    first = next(iter(sample.waveforms))
    (root / "submission").mkdir()
    (root / "submission" / "progress.jsonl").write_text(json.dumps([first, "from before"]) + '\n["U_half')
    calls: list[int] = []
    honest = runtime.Package.texts

    def fragile(self: runtime.Package, waveforms: list[np.ndarray]) -> list[str]:
        calls.append(len(waveforms))
        if any(len(one) == len(sample.waveforms[second]) for one in waveforms):
            raise MemoryError("planted")
        return honest(self, waveforms)

    second = list(sample.waveforms)[1]
    monkeypatch.setattr(runtime.Package, "texts", fragile)
    runtime.main()
    said = {row["utterance_id"]: row[KEY] for row in map(json.loads, (root / "submission/submission.jsonl").open())}
    assert said[first] == "from before" and said[second] == "" and said[SILENT] == "" and said[BROKEN] == ""
    assert said[list(sample.waveforms)[2]] != "" and len(said) == 6
    assert 1 in calls and not (root / "submission" / "progress.jsonl").exists()
