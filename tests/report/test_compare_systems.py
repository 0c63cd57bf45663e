from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_fixtures import small_corpus
from report_fixtures import MakeRun
from typer.testing import CliRunner

from speechtune.cli.compare import command
from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.report.compare_systems import DecodeOptions, open_systems, parameters_of
from speechtune.scoring.score import score_transcripts


@pytest.fixture(scope="module")
def run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("systems"))


def call(*words: object) -> tuple[int, str, str]:
    import typer

    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, list(map(str, words)))
    return done.exit_code, done.stdout, done.stderr


def test_a_run_and_its_base_give_the_numbers_of_the_run(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, error = call(f"{run}@before", run, "--json", "--quiet", "--normaliser", "unicode", "--html", page)
    assert code == 0, error
    found = json.loads(out)
    stored = json.loads((run / "scores.json").read_text())["measurements"]
    wanted = {(one["system"], one["context"]): one["score"]["wer"] for one in stored if one["set"] == "dev"}
    assert found["split"] == "dev" and found["utterances"] == 60
    assert found["systems"][0]["wer"] == wanted["before", "full"]
    assert found["systems"][1]["wer"] == wanted["after", "fit"]
    assert [one["name"] for one in found["systems"]] == ["run <1> (before)", "run <1>"]
    assert found["pairs"][0]["verdict"] == "better"
    assert "age" in found["slices"] and page.stat().st_size > 10_000
    again = call(f"{run}@before", run, "--json", "--quiet", "--html", page)
    assert again[0] == 2 and "--overwrite" in again[2]


def test_files_of_transcripts_need_a_corpus_and_every_id(run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (run / "transcripts/dev.after.fit.jsonl").read_text().splitlines()]
    files = {"a": rows, "b": rows[:-1], "c": [*rows, {"utterance_id": "stranger", "text": "x"}]}
    for name, part in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    a, b, c = (tmp_path / f"{name}.jsonl" for name in files)
    corpus = run.parent / "children"
    code, _, error = call(a, c)
    assert code == 2 and "--corpus" in error
    code, _, error = call(a, b, "--corpus", corpus, "--split", "dev")
    assert code == 2 and "b (" in error and repr(rows[-1]["utterance_id"]) in error
    code, _, error = call(a, c, "--corpus", corpus, "--split", "dev")
    assert code == 2 and "'stranger'" in error and "Traceback" not in error
    code, out, _ = call(f"one={a}", f"two={a}", "--corpus", corpus, "--split", "dev", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pairs"][0]["difference"] == 0.0
    code, _, error = call(a)
    assert code == 2 and "2 to 10" in error
    code, _, error = call(a, run, "--against", "nobody", "--corpus", corpus, "--split", "dev")
    assert code == 2 and "nobody" in error


def test_a_model_is_decoded_kept_and_not_decoded_twice(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.load(tiny_corpus).split("dev")
    file = tmp_path / "perfect.jsonl"
    write_transcripts(file, [Transcript(utterance_id=one.utterance_id, text=one.text) for one in corpus])
    words = [f"tiny={tiny_model}", file, "--corpus", tiny_corpus, "--split", "dev", "--out", tmp_path / "out"]
    code, out, error = call(*words, "--json", "--quiet")
    assert code == 0, error
    found = json.loads(out)
    cost = found["systems"][0]["cost"]
    assert cost["parameters"] > 1000 and cost["rtf"] > 0 and cost["memory_bytes"] > 2**20
    assert found["systems"][1]["wer"] == 0.0 and found["systems"][1]["cost"]["rtf"] is None
    assert (tmp_path / "out" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["systems"] == found["systems"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded twice")

    monkeypatch.setattr("speechtune.report.compare_systems.open_model", never)
    code, out, error = call(*words, "--json", "--quiet", "--overwrite")
    assert code == 0, error
    assert json.loads(out)["systems"] == found["systems"]


def test_references_may_be_a_file_and_speed_comes_from_its_rows(tmp_path: Path) -> None:
    rows = [{"utterance_id": str(k), "text": "a b", "duration_s": 2.0} for k in range(4)]
    (tmp_path / "ref.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({**row, "decode_s": 0.5}) + "\n" for row in rows))
    (tmp_path / "y.jsonl").write_text("".join(json.dumps({**row, "text": "a"}) + "\n" for row in rows))
    specs = [str(tmp_path / "x.jsonl"), str(tmp_path / "y.jsonl")]
    corpus, split, systems = open_systems(specs, tmp_path / "ref.jsonl", None, DecodeOptions())
    assert split is None and [one.name for one in systems] == ["x", "y"]
    assert systems[0].cost.rtf == 0.25 and systems[1].cost.rtf is None
    assert score_transcripts(corpus, systems[1].transcripts).wer == 0.5
    with pytest.raises(InputError, match="no audio"):
        open_systems([specs[0], str(tmp_path / "nothing")], tmp_path / "ref.jsonl", None, DecodeOptions())


def test_parameters_are_counted_from_the_header(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(tiny_model)
    assert parameters_of(tiny_model) == sum(one.numel() for one in model.parameters())
    assert parameters_of(tmp_path) is None


def test_names_that_are_equal_get_their_folder(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made = [Transcript(utterance_id=one.utterance_id, text=one.text) for one in corpus]
        write_transcripts(tmp_path / folder / "t.jsonl", made)
    specs = [str(tmp_path / folder / "t.jsonl") for folder in ("one", "two")]
    _, _, systems = open_systems(specs, tmp_path / "c", None, DecodeOptions())
    assert [one.name for one in systems] == ["one/t", "two/t"]
