"""From measures to ``audit.parquet``: what the rows are to each other, and which checks each one has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import explain_write_errors
from speechtune.corpus.audit.checks import flags_sql, judged_by
from speechtune.corpus.audit.database import ROW_GROUP_ROWS, Database, quoted
from speechtune.corpus.audit.policy import SEVERITIES, Policy
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS
from speechtune.corpus.duplicates import linked_fingerprints, linked_texts

_NEAR_AUDIO_FRAMES = 16  # 1 s of offset; a fingerprint has a word every 64 ms
_LEAST_AUDIO_S = 1.5  # shorter fingerprints are alike by chance
_LEAST_TEXT_CHARS = 12  # shorter texts are alike by chance (yes, yeah)


def relate(db: Database, measures: Path, policy: Policy) -> None:
    """Find which rows repeat which, in tables of row numbers.

    ``same_audio``, ``near_audio`` and ``near_text`` hold rows and the first row of their group, ``same_text`` the texts
    that stand in several rows. Only the first of equal recordings (texts) is compared with others; what is found of it
    holds for its copies too, unless it is the first of the near group itself. ``first_ids`` holds the ids of the first
    rows. All of it takes a bounded amount of memory: what is held for every row is a hash of 8 bytes, which DuckDB
    spills, and the searches of `corpus.duplicates` work on temporary files.
    """
    db.run(f"CREATE OR REPLACE VIEW measured AS SELECT * FROM read_parquet({quoted(measures)})")
    sounding = "samples_sha256 IS NOT NULL AND NOT is_silent"
    _repeated(db, "same_sounds", "samples_sha256", sounding)
    db.run(
        "CREATE OR REPLACE TABLE same_audio AS SELECT row, min(row) OVER w AS first_row, min(text_key) OVER w <> "
        "max(text_key) OVER w AS conflict FROM same_sounds WINDOW w AS (PARTITION BY samples_sha256) ORDER BY row"
    )
    _repeated(db, "same_texts", "text_key", "text_key <> ''")
    db.run(
        "CREATE OR REPLACE TABLE same_text AS SELECT row, min(row) OVER w AS first_row, count(*) OVER w AS copies "
        "FROM same_texts WINDOW w AS (PARTITION BY text_key) ORDER BY row"
    )
    wanted = "near_duplicate_audio" not in policy.disabled
    near_audio = _near_audio(db, policy.duplicates.audio_distance) if wanted else iter(())
    with explain_write_errors(db.scratch):
        db.fill("near_audio", "row BIGINT, first_row BIGINT", near_audio)
        _extend_to_copies(db, "near_audio", "same_audio")
    wanted = "near_duplicate_text" not in policy.disabled
    near_text = _near_text(db, policy.duplicates.text_similarity) if wanted else iter(())
    with explain_write_errors(db.scratch):
        db.fill("near_text", "row BIGINT, first_row BIGINT", near_text)
        _extend_to_copies(db, "near_text", "same_text")
    db.run(
        "CREATE OR REPLACE TABLE near_conflict AS SELECT row FROM near_audio JOIN (SELECT first_row FROM near_audio "
        "JOIN measured USING (row) GROUP BY first_row HAVING min(text_key) <> max(text_key)) USING (first_row) "
        "ORDER BY row"
    )
    db.run(
        "INSERT INTO near_conflict SELECT same.row FROM same_audio AS same SEMI JOIN near_conflict AS near "
        "ON same.first_row = near.row WHERE same.row <> same.first_row AND same.row NOT IN (SELECT row FROM "
        "near_conflict) ORDER BY row"
    )
    firsts = " UNION ".join(
        f"SELECT first_row FROM {table} WHERE first_row <> row" for table in ("same_audio", "near_audio", "near_text")
    )
    db.run(
        "CREATE OR REPLACE TABLE first_ids AS SELECT row AS first_row, utterance_id AS id FROM measured "
        f"WHERE row IN ({firsts})"
    )


def _repeated(db: Database, table: str, column: str, where: str) -> None:
    """Make a table of the rows whose value of ``column`` another row has too (by its hash; groups come later)."""
    db.run(
        f"CREATE OR REPLACE TABLE {table} AS SELECT row, text_key{'' if column == 'text_key' else ', ' + column} "
        f"FROM measured WHERE {where} AND hash({column}) IN (SELECT hash({column}) FROM measured WHERE {where} "
        "GROUP BY 1 HAVING count(*) > 1)"
    )


def _extend_to_copies(db: Database, near: str, same: str) -> None:
    """Give the copies of a row that is nearly equal to an earlier one the same link."""
    db.run(
        f"INSERT INTO {near} SELECT same.row, near.first_row FROM {same} AS same JOIN {near} AS near "
        "ON same.first_row = near.row WHERE same.row <> same.first_row AND near.row <> near.first_row ORDER BY 1"
    )


def _near_audio(db: Database, max_distance: float) -> Iterator[tuple[int, int]]:
    # One thread reads the file in the order of its rows, so nothing need be sorted.
    rows = db.stream(
        "SELECT row, fingerprint FROM measured WHERE fingerprint IS NOT NULL AND NOT is_silent AND duration_s >= "
        f"{_LEAST_AUDIO_S} AND row NOT IN (SELECT row FROM same_audio WHERE row <> first_row)",
        1_000,
    )
    prints = ((row, np.frombuffer(bytes.fromhex(text), ">u4").astype("<u4").tobytes()) for row, text in rows)
    return linked_fingerprints(prints, max_distance, max_offset_frames=_NEAR_AUDIO_FRAMES, folder=db.scratch)


def _near_text(db: Database, similarity: float) -> Iterator[tuple[int, int]]:
    rows = db.stream(
        f"SELECT row, text_key FROM measured WHERE length(text_key) >= {_LEAST_TEXT_CHARS} AND row NOT IN "
        "(SELECT row FROM same_text WHERE row <> first_row)"
    )
    return linked_texts(rows, similarity, folder=db.scratch)


def judge(db: Database, policy: Policy, out: Path) -> None:
    """Write the audited table: measures, relations, and the lists ``errors``, ``warnings``, ``notes`` of each row.

    Needs `relate`. The file's rows are in the order of the corpus's table, and are judged `ROW_GROUP_ROWS` at a time.
    """
    judged = judged_by(policy, UTTERANCE_CHECKS)
    flags = ", ".join(f"{flags_sql(judged, severity)} AS {severity}s" for severity in SEVERITIES)
    usual = _usual_casing(db, policy)
    unlike = f"measured.casing IS NOT NULL AND measured.casing <> {quoted(usual)}" if usual else "false"
    rows = int(db.value("SELECT count(*) FROM measured"))

    def parts() -> Iterator[Any]:
        for first in range(0, rows, ROW_GROUP_ROWS):
            within = f"BETWEEN {first} AND {first + ROW_GROUP_ROWS - 1}"
            yield db.arrow(f"SELECT *, {flags} FROM ({_related_sql(within, unlike)}) ORDER BY row")

    db.write_parquet(out, parts())
    db.run(f"CREATE OR REPLACE VIEW audit AS SELECT * FROM read_parquet({quoted(out)})")


def _related_sql(within: str, unlike: str) -> str:
    """The measures of some rows with what `relate` found of them."""

    def some(table: str) -> str:
        return f"(SELECT * FROM {table} WHERE row {within})"

    return f"""
        SELECT measured.* EXCLUDE (fingerprint),
            first_audio.id AS duplicate_audio_of,
            first_near.id AS near_duplicate_audio_of,
            first_text.id AS near_duplicate_text_of,
            coalesce(same_audio.conflict, false) AS label_conflict,
            near_conflict.row IS NOT NULL AS near_label_conflict,
            CASE WHEN measured.text_key <> '' THEN coalesce(same_text.copies, 1) END AS text_copies,
            {unlike} AS casing_unlike_corpus
        FROM {some("measured")} AS measured
        LEFT JOIN {some("same_audio")} AS same_audio ON same_audio.row = measured.row
        LEFT JOIN first_ids AS first_audio
            ON first_audio.first_row = same_audio.first_row AND same_audio.first_row <> measured.row
        LEFT JOIN {some("near_audio")} AS near_audio ON near_audio.row = measured.row
        LEFT JOIN first_ids AS first_near
            ON first_near.first_row = near_audio.first_row AND near_audio.first_row <> measured.row
        LEFT JOIN {some("near_text")} AS near_text ON near_text.row = measured.row
        LEFT JOIN first_ids AS first_text
            ON first_text.first_row = near_text.first_row AND near_text.first_row <> measured.row
        LEFT JOIN {some("near_conflict")} AS near_conflict ON near_conflict.row = measured.row
        LEFT JOIN {some("same_text")} AS same_text ON same_text.row = measured.row"""


def _usual_casing(db: Database, policy: Policy) -> str | None:
    """The casing that nearly all texts have, if there is one."""
    share = 1 - policy.text.conventions_note_above_frac
    found: str | None = db.value(
        "SELECT max(casing) FROM (SELECT casing, count(*) AS n, sum(count(*)) OVER () AS total FROM measured "
        f"WHERE casing IS NOT NULL GROUP BY casing) WHERE n >= {share} * total"
    )
    return found
