"""What a corpus is: hours, balance, distributions, vocabulary, verdicts. All by queries in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speechtune.core import intervals
from speechtune.corpus.audit.corpus_checks import HOURS, label_noise_counts
from speechtune.corpus.audit.database import Database, name_sql

BINS = 40
CATEGORIES = ("split", "language", "speaker_id", "session_id", "age", "gender", "source", "format", "subtype",
              "sample_rate_hz", "channels", "bit_depth", "rate_class", "text_language", "casing")  # fmt: skip
MOST_VALUES = 30
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """How a measure is shown: its unit and the range its histogram covers (values outside count in the end bins)."""

    unit: str
    low: float
    high: float


SCALES = {
    "duration_s": Scale("s", 0, 40),
    "bandwidth_hz": Scale("Hz", 0, 24_000),
    "level_lufs": Scale("LUFS", -70, 0),
    "rms_dbfs": Scale("dBFS", -80, 0),
    "peak_dbfs": Scale("dBFS", -60, 4),
    "clipped_frac": Scale("", 0, 0.1),
    "snr_db": Scale("dB", -10, 70),
    "lead_silence_s": Scale("s", 0, 8),
    "trail_silence_s": Scale("s", 0, 8),
    "longest_silence_s": Scale("s", 0, 8),
    "speech_frac": Scale("", 0, 1),
    "music_score": Scale("", 0, 1),
    "several_speakers_score": Scale("", 0, 1),
    "hum_prominence_db": Scale("dB", 0, 40),
    "chars": Scale("characters", 0, 400),
    "words": Scale("words", 0, 80),
    "chars_per_s": Scale("characters/s", 0, 40),
    "words_per_s": Scale("words/s", 0, 8),
    "tokens_most": Scale("tokens", 0, 448),
}

# Hours and what they are said to bring: notebook part 1, table E and C-8; DA-13, DA-19, DA8.
VOLUME_TIERS = (
    (0.0, "below a proof of concept", "0.5 h (30-60 minutes) is the least for a proof of concept (notebook C-8)"),
    (0.5, "proof of concept", "enough to see the pipeline work (notebook C-8)"),
    (1.0, "first gain", "1-2 h: 5-15 % fewer word errors, relatively (table E)"),
    (2.0, "practical minimum", "2-5 h: 10-20 % fewer word errors, relatively (notebook C-8, table E)"),
    (5.0, "recommended for one speaker or domain", "5-10 h: 15-25 % fewer word errors (table E)"),
    (10.0, "small", "10-20 h, 5-10 speakers or more: 20-40 % fewer word errors (table E, DA-19)"),
    (50.0, "medium", "50-100 h, 20 speakers or more: 40-60 % fewer word errors (table E, DA-19)"),
    (200.0, "large", "200-500 h, 50 speakers or more: 60-80 % fewer word errors (table E, DA-19)"),
    (1000.0, "very large", "1000 h and more: 70-85 % fewer word errors (table E)"),
)


def rounded(value: Any, digits: int = 6) -> Any:
    """A number with so many significant digits (``None`` and integers as they are)."""
    if value is None or isinstance(value, int | str):
        return value
    number = float(value)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def vocabulary_tables(db: Database) -> None:
    """Make ``train_words`` and ``evaluation_words`` from the texts' keys.

    ``first_share`` says from which share of train on a word is known: utterances are put in a fixed order by a hash
    of their ids, so that 0.1 stands for the first tenth of them.
    """
    words = "unnest(string_split(text_key, ' ')) AS word"
    shuffled = "(md5_number_lower(utterance_id) / 18446744073709551616.0)"
    db.run(
        f"CREATE OR REPLACE TABLE train_words AS SELECT word, count(*) AS n, min(share) AS first_share FROM "
        f"(SELECT {words}, {shuffled} AS share FROM audit WHERE text_key <> '' AND "
        "(split IS NULL OR split = 'train')) GROUP BY word"
    )
    db.run(
        "CREATE OR REPLACE TABLE evaluation_words AS SELECT split, word, words.n, first_share FROM "
        f"(SELECT split, word, count(*) AS n FROM (SELECT split, {words} FROM audit WHERE text_key <> '' AND "
        "split IS NOT NULL AND split <> 'train') GROUP BY ALL) AS words LEFT JOIN train_words USING (word)"
    )


def corpus_facts(db: Database) -> dict[str, Any]:
    """The section ``corpus`` of the summary; needs `vocabulary_tables`."""
    rows, hours, unreadable, speakers, sessions, texts, chars, words = db.one(
        f"SELECT count(*), {HOURS}, count(audio_error), count(DISTINCT speaker_id), count(DISTINCT session_id), "
        "count(DISTINCT text_key), sum(chars), sum(words) FROM audit"
    )
    hours = float(hours or 0.0)
    suspicious, readable = label_noise_counts(db)
    return {
        "utterances": rows,
        "hours": rounded(hours),
        "seconds_of_audio": rounded(hours * 3600, 9),
        "unreadable": unreadable,
        "speakers": speakers,
        "sessions": sessions,
        "different_texts": texts,
        "characters": int(chars or 0),
        "words": int(words or 0),
        "splits": _splits(db),
        "vocabulary": _vocabulary(db),
        "volume": _volume(db),
        "label_noise": {
            "suspicious": suspicious,
            "of": readable,
            "share": rounded(suspicious / readable) if readable else None,
            "interval95": [rounded(edge) for edge in wilson(suspicious, readable)],
            "meaning": "transcripts that cannot be right by the measures alone; the true share is higher",
        },
    }


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float | None, float | None]:
    """`intervals.wilson`, unknown where there is nothing to count."""
    return intervals.wilson(count, total, z) if total else (None, None)


def _splits(db: Database) -> list[dict[str, Any]]:
    found = db.dicts(
        f"SELECT coalesce(split, '(none)') AS split, count(*) AS utterances, {HOURS} AS hours, "
        "count(DISTINCT speaker_id) AS speakers, sum(words)::BIGINT AS words, "
        "count(DISTINCT text_key) AS different_texts FROM audit GROUP BY 1 ORDER BY 3 DESC, 1"
    )
    return [{name: rounded(value) for name, value in row.items()} for row in found]


def _vocabulary(db: Database) -> dict[str, Any]:
    shares = ", ".join(f"count(*) FILTER (first_share < {share})" for share in SHARES)
    growth = db.one(f"SELECT {shares} FROM train_words")
    unseen = ", ".join(f"sum(n) FILTER (first_share IS NULL OR first_share >= {share})" for share in SHARES)
    rates = {}
    for split, tokens, types, *counts in db.rows(
        f"SELECT split, sum(n), count(*), {unseen} FROM evaluation_words GROUP BY 1 ORDER BY 1"
    ):
        worst = db.rows(
            "SELECT word, n FROM evaluation_words WHERE first_share IS NULL AND split = "
            f"'{str(split).replace(chr(39), chr(39) * 2)}' ORDER BY n DESC, word LIMIT 20"
        )
        rates[split] = {
            "words": int(tokens),
            "different_words": types,
            "oov_frac_by_train_share": [rounded((count or 0) / int(tokens)) for count in counts],
            "most_frequent_oov": [[word, int(count)] for word, count in worst],
        }
    return {
        "train_shares": list(SHARES),
        "train_different_words": list(growth),
        "train_words_once": db.value("SELECT count(*) FROM train_words WHERE n = 1"),
        "most_frequent": [[word, int(n)] for word, n in
                          db.rows("SELECT word, n FROM train_words ORDER BY n DESC, word LIMIT 30")],
        "evaluation": rates,
    }  # fmt: skip


def _volume(db: Database) -> dict[str, Any]:
    hours = float(db.value(f"SELECT {HOURS} FROM audit WHERE split IS NULL OR split = 'train'") or 0.0)
    place = max(index for index, (least, _, _) in enumerate(VOLUME_TIERS) if hours >= least)
    _, name, meaning = VOLUME_TIERS[place]
    following = VOLUME_TIERS[place + 1] if place + 1 < len(VOLUME_TIERS) else None
    return {
        "hours_to_learn_from": rounded(hours),
        "tier": name,
        "meaning": meaning,
        "next_tier": following and {"hours": following[0], "name": following[1], "meaning": following[2]},
        "caution": "gains of a notebook's table, not measured on this corpus; 10 good, diverse hours beat 50 poor ones",
    }


def categories(db: Database) -> dict[str, Any]:
    """Counts and hours by the values of each column, the most hours first, overall and by split."""
    result = {}
    for column in CATEGORIES:
        different = db.value(f"SELECT count(DISTINCT {column}) FROM audit")
        if not different:
            continue
        values = db.rows(
            f"SELECT {column}::VARCHAR, count(*), {HOURS} FROM audit GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT {MOST_VALUES}"
        )
        by_split: dict[str, dict[str, int]] = {}
        if column != "split" and different <= MOST_VALUES:
            for split, value, count in db.rows(
                f"SELECT split, {column}::VARCHAR, count(*) FROM audit WHERE split IS NOT NULL GROUP BY 1, 2 "
                "ORDER BY 1, 3 DESC, 2"
            ):
                by_split.setdefault(split, {})[_shown(value)] = count
        result[column] = {
            "different": different,
            "values": [{"value": _shown(value), "utterances": n, "hours": rounded(h or 0.0)} for value, n, h in values],
            "by_split": by_split,
        }
    return result


def _shown(value: str | None) -> str:
    return "(unknown)" if value is None else value


def distributions(db: Database, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Histogram and quantiles of each numeric measure, overall and by split."""
    splits = [row[0] for row in db.rows("SELECT DISTINCT split FROM audit WHERE split IS NOT NULL ORDER BY 1")]
    result = {}
    for column, scale in {**SCALES, **dict.fromkeys(extra, SCALES["tokens_most"])}.items():
        count, *numbers = db.one(_statistics_sql(column))
        if not count:
            continue
        names = ("min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max", "mean")
        width = (scale.high - scale.low) / BINS
        counts = {split: [0] * BINS for split in splits}
        overall = [0] * BINS
        quoted_name = name_sql(column)
        for split, place, n in db.rows(
            f"SELECT split, least({BINS - 1}, greatest(0, floor(({quoted_name} - {scale.low}) / {width})::INT)), "
            f"count(*) FROM audit WHERE {quoted_name} IS NOT NULL GROUP BY 1, 2"
        ):
            overall[place] += n
            if split is not None:
                counts[split][place] += n
        result[column] = {
            "unit": scale.unit,
            "count": count,
            **{name: rounded(number) for name, number in zip(names, numbers, strict=True)},
            "histogram": {
                "edges": [rounded(scale.low + width * index) for index in range(BINS + 1)],
                "counts": overall,
                "by_split": counts,
                "ends_open": True,
            },
        }
    return result


def _statistics_sql(column: str) -> str:
    name = name_sql(column)
    return (
        f"SELECT count({name}), min({name}), {', '.join(f'quantile_cont({name}, {share})' for share in _QUANTILES)}, "
        f"max({name}), avg({name}) FROM audit"
    )


_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
