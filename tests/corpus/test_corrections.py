"""Corrections: what a human changed arrives, what the human did not touch stays, and a round can be undone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from speechtune.core.errors import InputError
from speechtune.corpus import corrections
from speechtune.corpus.corrections import export_corrections, import_corrections, undo_corrections
from speechtune.corpus.table import Corpus, Utterance

TEXTS = ("i wnat more", 'he said "go", twice', "None", "שלום é", "=1+1", "  two blanks  ")
Edit = Callable[[list[dict[str, str]]], None]


@pytest.fixture
def root(tmp_path: Path, make_audio: Any) -> Path:
    rows = []
    for number, text in enumerate(TEXTS):
        make_audio(tmp_path / f"c/audio/{number}.wav")
        source = {"label_source": "model"} if number < 3 else {}
        rows.append(
            Utterance(
                utterance_id=f"00{number}", file_name=f"audio/{number}.wav", text=text, duration_s=0.2, extra=source
            )
        )
    Corpus(tmp_path / "c", rows, {"kept": len(rows), "source": "x"}).save()
    return tmp_path / "c"


def edited(root: Path, suffix: str, edit: Edit, only: str | None = None) -> Path:
    """The exported table as a spreadsheet would save it after ``edit``."""
    file = root.parent / f"table{suffix}"
    export_corrections(Corpus.load(root), file, only, overwrite=True)
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        edit(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        edit(rows)
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), delimiter=";")
            writer.writeheader()
            writer.writerows(rows)
    return file


def mark(rows: list[dict[str, str]]) -> None:
    rows[0] |= {"corrected_text": "i want more", "verdict": "fixed", "note": "typo"}
    rows[1] |= {"verdict": "ok"}
    rows[2] |= {"verdict": "drop"}
    rows[3] |= {"verdict": "unsure"}
    rows[4] |= {"corrected_text": " equals one plus one "}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_round_changes_what_it_says_and_is_undone(root: Path, suffix: str) -> None:
    before = (root / "metadata.jsonl").read_bytes()
    result = import_corrections(edited(root, suffix, mark), Corpus.load(root))
    assert (result.round, result.changed, result.confirmed, result.unsure, result.not_reviewed) == (1, 2, 1, 1, 1)
    assert (result.kept, result.dropped_by_reason) == (5, {"dropped by a human": 1})
    rows = {row.utterance_id: row for row in Corpus.load(root)}
    assert [row.text for row in rows.values()] == ["i want more", TEXTS[1], TEXTS[3], "equals one plus one", TEXTS[5]]
    assert rows["000"].extra == {
        "label_source": "corrected",
        "text_before_correction": "i wnat more",
        "label_round": 1,
        "label_verdict": "fixed",
        "label_note": "typo",
    }
    assert rows["001"].extra["label_source"] == "human"
    assert "text_before_correction" not in rows["001"].extra
    assert rows["003"].extra == {"label_round": 1, "label_verdict": "unsure"}
    assert rows["005"].extra == {}
    card = Corpus.load(root).card
    assert (card["kept"], card["source"], len(card["corrections"])) == (5, "x", 1)
    assert card["fingerprint"] == Corpus.load(root).fingerprint()
    again = import_corrections(
        edited(root, suffix, lambda rows: rows[0].update(corrected_text="I want more!")), Corpus.load(root)
    )
    assert (again.round, again.changed) == (2, 1)
    assert Corpus.load(root).utterances[0].extra["text_before_correction"] == "i wnat more"
    undo_corrections(Corpus.load(root))
    assert Corpus.load(root).utterances[0].text == "i want more"
    undo_corrections(Corpus.load(root))
    assert (root / "metadata.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="nothing to undo"):
        undo_corrections(Corpus.load(root))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_untouched_table_changes_nothing(root: Path, suffix: str) -> None:
    before = (root / "metadata.jsonl").read_bytes()
    result = import_corrections(edited(root, suffix, lambda rows: None), Corpus.load(root))
    assert (result.not_reviewed, result.changed) == (len(TEXTS), 0)
    assert (root / "metadata.jsonl").read_bytes() == before


def column(number: int, **cells: str) -> Edit:
    return lambda rows: rows[number].update(cells)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (column(1, utterance_id="ghost"), r"line 3: .* has no utterance 'ghost'"),
        (column(1, utterance_id="000"), r"line 3: the utterance '000' stands already in .*line 2"),
        (column(2, text="none"), r"line 4: the text of '002' is 'none', but in the corpus it is 'None' now"),
        (column(3, verdict="maybe"), r"line 5: the verdict 'maybe' is unknown: write ok, fixed, drop, unsure"),
        (column(3, verdict="ok", corrected_text="other"), r"line 5: the verdict is ok, but"),
        (column(3, verdict="fixed", corrected_text=""), r"line 5: the verdict is fixed, but there is no"),
        (column(0, corrected_text="two\nlines"), r"the corrected text holds a line break"),
        (lambda rows: [row.update(verdict="drop") for row in rows], "drops every utterance"),
        (lambda rows: [row.pop("verdict") for row in rows], "no column verdict"),
    ],
)
def test_wrong_rows_are_named_and_nothing_is_written(root: Path, edit: Edit, expected: str) -> None:
    file = edited(root, ".csv", lambda rows: (mark(rows), edit(rows)))  # type: ignore[func-returns-value]
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    with pytest.raises(InputError, match=expected):
        import_corrections(file, Corpus.load(root))
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before


def test_a_table_cannot_be_applied_twice(root: Path) -> None:
    file = edited(root, ".csv", column(0, corrected_text="i want more"))
    import_corrections(file, Corpus.load(root))
    with pytest.raises(InputError, match="export again"):
        import_corrections(file, Corpus.load(root))


def test_ids_that_lost_their_zeros_in_a_spreadsheet_are_found_by_their_audio(root: Path) -> None:
    result = import_corrections(edited(root, ".csv", column(1, utterance_id="1", verdict="ok")), Corpus.load(root))
    assert result.confirmed == 1
    with pytest.raises(InputError, match="has no utterance '2'"):
        import_corrections(edited(root, ".csv", column(1, utterance_id="2")), Corpus.load(root))


def test_killed_between_table_and_card_the_same_command_finishes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = edited(root, ".csv", mark)
    card = (root / "corpus.json").read_bytes()
    first = import_corrections(file, Corpus.load(root))
    table = (root / "metadata.jsonl").read_bytes()
    (root / "corpus.json").write_bytes(card)  # as if killed before the card
    assert import_corrections(file, Corpus.load(root)) == first
    assert (root / "metadata.jsonl").read_bytes() == table
    assert len(Corpus.load(root).card["corrections"]) == 1
    shutil.rmtree(root / "corrections")
    with pytest.raises(InputError):
        undo_corrections(Corpus.load(root))


def test_killed_before_the_table_nothing_has_happened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, before = edited(root, ".csv", mark), (root / "metadata.jsonl").read_bytes()

    def die(corpus: Corpus) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "_save", die)
        with pytest.raises(KeyboardInterrupt):
            import_corrections(file, Corpus.load(root))
    assert (root / "metadata.jsonl").read_bytes() == before
    assert import_corrections(file, Corpus.load(root)).changed == 2


def test_undo_refuses_a_corpus_that_changed_since(root: Path) -> None:
    import_corrections(edited(root, ".csv", mark), Corpus.load(root))
    corpus = Corpus.load(root)
    corpus.utterances[0].text = "something else"
    corpus.save()
    with pytest.raises(InputError, match="has changed since round 1"):
        undo_corrections(Corpus.load(root))


def test_the_verb(root: Path) -> None:
    from speechtune.cli import corrections as verb

    file = root.parent / "out.csv"
    words = ["export", str(root), "--out", str(file), "--only", "label_source=model", "--json"]
    done = CliRunner().invoke(verb.app, words)
    assert (done.exit_code, json.loads(done.stdout)["kept"]) == (0, 3)
    assert file.read_bytes().startswith(b"\xef\xbb\xbfutterance_id,audio,text,corrected_text,verdict,note")
    assert CliRunner().invoke(verb.app, words).exit_code == 2  # never over a table that may hold work
    assert CliRunner().invoke(verb.app, ["import", str(file), "--corpus", str(root), "--json"]).exit_code == 0
    assert CliRunner().invoke(verb.app, ["undo", "--corpus", str(root), "--json"]).exit_code == 0
    assert CliRunner().invoke(verb.app, ["import", str(root / "no.csv"), "--corpus", str(root)]).exit_code == 2
