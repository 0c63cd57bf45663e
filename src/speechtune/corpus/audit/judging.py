"""From measures to ``audit.parquet``: what the rows are to each other, and which checks each one has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from speechtune.corpus.audit.checks import flags_sql, judged_by
from speechtune.corpus.audit.database import ROW_GROUP_ROWS, Database, quoted
from speechtune.corpus.audit.policy import SEVERITIES, Policy
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS
from speechtune.corpus.duplicates import duplicate_groups, duplicate_texts, near_duplicate_pairs

_NEAR_AUDIO_FRAMES = 16  # 1 s of offset; a fingerprint has a word every 64 ms
_LEAST_AUDIO_S = 1.5  # shorter fingerprints are alike by chance
_LEAST_TEXT_CHARS = 12  # shorter texts are alike by chance (yes, yeah)


def relate(db: Database, measures: Path, policy: Policy) -> None:
    """Make the table ``related``: each row's duplicates, by number of row.

    Exact duplicates are found by SQL in bounded memory; nearly equal ones by the searches of `corpus.duplicates`, which
    hold about 200 bytes for each different text or recording.
    """
    db.run(f"CREATE OR REPLACE VIEW measured AS SELECT * FROM read_parquet({quoted(measures)})")
    db.run(
        "CREATE OR REPLACE TABLE same_audio AS SELECT row, first_row, texts > 1 AS conflict FROM (SELECT row, "
        "min(row) OVER w AS first_row, count(*) OVER w AS copies, count(DISTINCT text_key) OVER w AS texts "
        "FROM measured WHERE samples_sha256 IS NOT NULL AND NOT is_silent WINDOW w AS (PARTITION BY samples_sha256)) "
        "WHERE copies > 1"
    )
    db.run("CREATE OR REPLACE TABLE texts AS SELECT text_key, count(*) AS copies, min(row) AS first_row FROM measured "
           "WHERE text_key <> '' GROUP BY text_key")  # fmt: skip
    near_audio: list[tuple[int, int]] = []
    if "near_duplicate_audio" not in policy.disabled:
        near_audio = _members(_near_audio(db, policy.duplicates.audio_distance))
    db.fill("near_audio", "row BIGINT, first_row BIGINT", near_audio)
    near_text: list[tuple[int, int]] = []
    if "near_duplicate_text" not in policy.disabled:
        near_text = _members(_near_text(db, policy.duplicates.text_similarity))
    db.fill("near_text", "row BIGINT, first_row BIGINT", near_text)
    db.run(
        "CREATE OR REPLACE TABLE near_conflict AS SELECT row FROM (SELECT row, count(DISTINCT text_key) OVER "
        "(PARTITION BY first_row) AS texts FROM near_audio JOIN measured USING (row)) WHERE texts > 1"
    )


def _near_audio(db: Database, max_distance: float) -> Iterator[tuple[str, str]]:
    rows = db.stream(
        "SELECT arg_min(fingerprint, row), min(row) FROM measured WHERE fingerprint IS NOT NULL AND NOT is_silent "
        f"AND duration_s >= {_LEAST_AUDIO_S} GROUP BY samples_sha256 ORDER BY 2",
        1_000,
    )
    prints = ((str(row), np.frombuffer(bytes.fromhex(text), ">u4").astype("<u4").tobytes()) for text, row in rows)
    for pair in near_duplicate_pairs(prints, max_distance, max_offset_frames=_NEAR_AUDIO_FRAMES):
        yield pair.first, pair.second


def _near_text(db: Database, similarity: float) -> Iterator[tuple[str, str]]:
    rows = db.stream(
        f"SELECT first_row, text_key FROM texts WHERE length(text_key) >= {_LEAST_TEXT_CHARS} ORDER BY first_row"
    )
    for pair in duplicate_texts(((str(row), key) for row, key in rows), similarity=similarity).near:
        yield pair.first, pair.second


def _members(links: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    """(row, first row of its group) of every row that is linked."""
    members = []
    for group in duplicate_groups(links):
        numbers = sorted(map(int, group))
        members += [(number, numbers[0]) for number in numbers]
    return sorted(members)


def judge(db: Database, policy: Policy, out: Path) -> None:
    """Write the audited table: measures, relations, and the lists ``errors``, ``warnings``, ``notes`` of each row.

    Needs `relate`. The file's rows are in the order of the corpus's table.
    """
    judged = judged_by(policy, UTTERANCE_CHECKS)
    flags = ", ".join(f"{flags_sql(judged, severity)} AS {severity}s" for severity in SEVERITIES)
    kept = "* EXCLUDE (fingerprint)"
    db.run(
        f"""COPY (SELECT *, {flags} FROM (
            SELECT measured.{kept},
                first_audio.utterance_id AS duplicate_audio_of,
                first_near.utterance_id AS near_duplicate_audio_of,
                first_text.utterance_id AS near_duplicate_text_of,
                coalesce(same_audio.conflict, false) AS label_conflict,
                near_conflict.row IS NOT NULL AS near_label_conflict,
                texts.copies AS text_copies,
                measured.casing IS NOT NULL AND usual.casing IS NOT NULL AND measured.casing <> usual.casing
                    AS casing_unlike_corpus
            FROM measured
            LEFT JOIN same_audio ON same_audio.row = measured.row
            LEFT JOIN measured AS first_audio
                ON first_audio.row = same_audio.first_row AND same_audio.first_row <> measured.row
            LEFT JOIN near_audio ON near_audio.row = measured.row
            LEFT JOIN measured AS first_near
                ON first_near.row = near_audio.first_row AND near_audio.first_row <> measured.row
            LEFT JOIN near_text ON near_text.row = measured.row
            LEFT JOIN measured AS first_text
                ON first_text.row = near_text.first_row AND near_text.first_row <> measured.row
            LEFT JOIN near_conflict ON near_conflict.row = measured.row
            LEFT JOIN texts ON texts.text_key = measured.text_key
            LEFT JOIN ({_usual_casing(policy)}) AS usual ON true
        ) ORDER BY row) TO {quoted(out)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"""
    )
    db.run(f"CREATE OR REPLACE VIEW audit AS SELECT * FROM read_parquet({quoted(out)})")


def _usual_casing(policy: Policy) -> str:
    """The casing that nearly all texts have, if there is one."""
    share = 1 - policy.text.conventions_note_above_frac
    return (
        "SELECT max(casing) AS casing FROM (SELECT casing, count(*) AS n, sum(count(*)) OVER () AS total FROM measured "
        f"WHERE casing IS NOT NULL GROUP BY casing) WHERE n >= {share} * total"
    )
