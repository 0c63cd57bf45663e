"""Checks of the corpus as a whole: each is a function over the audited table that returns what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from speechtune.corpus.audit.database import Database, quoted
from speechtune.corpus.audit.policy import Policy, Severity
from speechtune.corpus.audit.utterance_checks import LABEL_ERROR_CHECKS

HOURS = "sum(round(coalesce(duration_s, 0) * 1000)::BIGINT) / 3600000.0"
EVALUATION = "split IS NOT NULL AND split <> 'train'"
MOST_GROUPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a corpus check found.

    ``count`` is in ``unit``; ``rows`` is SQL for the utterances concerned (``None``: it concerns none in particular).
    """

    severity: Severity
    sentence: str
    count: int
    unit: str = "utterances"
    rows: str | None = None


@dataclass(frozen=True, slots=True)
class CorpusCheck:
    """One question asked of the whole corpus; fields as in `checks.Check`. ``find`` answers it."""

    name: str
    title: str
    meaning: str
    remedy: str
    source: str
    find: Callable[[Database, Policy], list[Finding]]


def _count(db: Database, rows: str) -> int:
    return int(db.value(f"SELECT count(*) FROM audit WHERE {rows}"))


def _list(values: list[str], count: int | None = None, most: int = 5) -> str:
    """The first values, and how many more there are of ``count`` (default: all that are given)."""
    rest = (len(values) if count is None else count) - most
    return ", ".join(values[:most]) + (f" and {rest} more" if rest > 0 else "")


def _twice(db: Database, policy: Policy) -> list[Finding]:
    rows = "utterance_id IN (SELECT utterance_id FROM audit GROUP BY 1 HAVING count(*) > 1)"
    count = _count(db, rows)
    return [Finding(severity="error", sentence=f"{count} rows share their utterance id with another.", count=count,
                    rows=rows)] if count else []  # fmt: skip


def _orphans(db: Database, policy: Policy) -> list[Finding]:
    names = [str(row[0]) for row in db.rows("SELECT file_name FROM orphans ORDER BY 1 LIMIT 5")]
    count = int(db.value("SELECT count(*) FROM orphans"))
    return [Finding(severity="warning", sentence=f"{count} recordings have no row: {_list(names, count)}.", count=count,
                    unit="files")] if count else []  # fmt: skip


def _shared(column: str, severity: Severity, noun: str) -> Callable[[Database, Policy], list[Finding]]:
    """A finder of values of a column that stand in more than one split."""

    def find(db: Database, policy: Policy) -> list[Finding]:
        shared = (
            f"SELECT {column} FROM audit WHERE {column} IS NOT NULL AND split IS NOT NULL "
            f"GROUP BY 1 HAVING count(DISTINCT split) > 1"
        )
        count = int(db.value(f"SELECT count(*) FROM ({shared})"))
        if not count:
            return []
        names = [str(row[0]) for row in db.rows(f"{shared} ORDER BY 1 LIMIT 5")]
        rows = f"{EVALUATION} AND {column} IN ({shared})"
        sentence = f"{count} {noun} are in more than one split: {_list(names, count)}."
        return [Finding(severity=severity, sentence=sentence, count=count, unit=noun, rows=rows)]

    return find


def _audio_leak(db: Database, policy: Policy) -> list[Finding]:
    groups = (
        "SELECT row FROM (SELECT row, first_row FROM same_audio UNION SELECT row, first_row FROM near_audio) AS g "
        f"JOIN audit USING (row) WHERE {EVALUATION} AND g.first_row IN (SELECT first_row FROM (SELECT row, "
        "first_row FROM same_audio UNION SELECT row, first_row FROM near_audio) JOIN audit USING (row) "
        "WHERE split IS NOT NULL GROUP BY 1 HAVING count(DISTINCT split) > 1)"
    )
    rows = f"row IN ({groups})"
    count = _count(db, rows)
    sentence = f"{count} evaluation utterances have the same or nearly the same audio in another split."
    return [Finding(severity="error", sentence=sentence, count=count, rows=rows)] if count else []


def _text_leak(db: Database, policy: Policy) -> list[Finding]:
    found = []
    shared = f"{EVALUATION} AND text_key IN (SELECT text_key FROM audit WHERE split = 'train' AND text_key <> '')"
    for split, total, leaked in db.rows(
        f"SELECT split, count(*), count(*) FILTER ({shared}) FROM audit WHERE {EVALUATION} GROUP BY 1 ORDER BY 1"
    ):
        if leaked > policy.balance.prompt_leak_warn_above_frac * total:
            sentence = f"{leaked} of {total} texts of split {split} are also in train: scores on it flatter."
            rows = f"{shared} AND split = {quoted(split)}"
            found.append(Finding(severity="warning", sentence=sentence, count=leaked, rows=rows))
    return found


def _unknown(db: Database, policy: Policy) -> list[Finding]:
    found = []
    total = int(db.value("SELECT count(*) FROM audit"))
    for column, consequence in (
        ("speaker_id", "leaks between splits cannot be seen"),
        ("split", "nothing is held out for testing"),
        ("language", "texts cannot be held against a language"),
    ):
        count = _count(db, f"{column} IS NULL")
        if count:
            sentence = f"{count} of {total} utterances have no {column}: {consequence}."
            found.append(Finding(severity="note", sentence=sentence, count=count, rows=f"{column} IS NULL"))
    return found


def _small_splits(db: Database, policy: Policy) -> list[Finding]:
    found: list[Finding] = []
    limits = policy.volume
    for split, hours in db.rows(f"SELECT split, {HOURS} FROM audit WHERE {EVALUATION} GROUP BY 1 ORDER BY 1"):
        minutes = 60 * hours
        if minutes < limits.eval_warn_below_min:
            severity: Severity = "error" if minutes < limits.eval_error_below_min else "warning"
            sentence = f"Split {split} has {minutes:.0f} minutes: differences between models will be chance."
            found.append(Finding(severity=severity, sentence=sentence, count=1, unit="splits"))
    return found


def _volume(db: Database, policy: Policy) -> list[Finding]:
    limits = policy.volume
    hours = db.value(f"SELECT {HOURS} FROM audit WHERE split IS NULL OR split = 'train'") or 0.0
    for severity, least in (
        ("error", limits.error_below_h),
        ("warning", limits.warn_below_h),
        ("note", limits.note_below_h),
    ):
        if hours < least:
            sentence = f"There are {hours:.2f} hours to learn from, less than {least:g}."
            return [Finding(severity=severity, sentence=sentence, count=1, unit="corpus")]  # type: ignore[arg-type]
    return []


def _few_speakers(db: Database, policy: Policy) -> list[Finding]:
    speakers, hours = db.one(f"SELECT count(DISTINCT speaker_id), {HOURS} FROM audit")
    needed = policy.volume.speakers_note_below * (5 if hours >= 200 else 2 if hours >= 10 else 1)
    if not speakers or speakers >= needed:
        return []
    sentence = f"{speakers} speakers in {hours:.1f} hours, fewer than {needed}: good for them, not for others."
    return [Finding(severity="note", sentence=sentence, count=int(speakers), unit="speakers")]


def _dominance(column: str, noun: str) -> Callable[[Database, Policy], list[Finding]]:
    """A finder of a group that has too large or too small a share of the audio."""

    def find(db: Database, policy: Policy) -> list[Finding]:
        groups = db.rows(
            f"SELECT {column}, {HOURS} FROM audit WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 "
            f"LIMIT {MOST_GROUPS + 1}"
        )
        total = sum(hours for _, hours in groups)
        if not 1 < len(groups) <= MOST_GROUPS or total <= 0:
            return []
        limits = policy.balance
        found = []
        most = limits.speaker_share_warn_above_frac if column == "speaker_id" else limits.group_share_warn_above_frac
        name, hours = groups[0]
        if hours > most * total:
            sentence = f"{noun} {name} has {hours / total:.0%} of the audio."
            found.append(Finding(severity="warning", sentence=sentence, count=1, unit=f"{column} groups",
                                 rows=f"{column} = {quoted(name)}"))  # fmt: skip
        small = [name for name, hours in groups if hours < limits.group_share_note_below_frac * total]
        if small and column != "speaker_id":
            sentence = f"{noun} {_list(small)}: less than {limits.group_share_note_below_frac:.0%} of the audio each."
            names = ", ".join(map(quoted, small))
            found.append(Finding(severity="note", sentence=sentence, count=len(small), unit=f"{column} groups",
                                 rows=f"{column} IN ({names})"))  # fmt: skip
        return found

    return find


def _same_length(db: Database, policy: Policy) -> list[Finding]:
    total = _count(db, "duration_s IS NOT NULL")
    if total < policy.balance.same_length_min_clips:
        return []
    # Two grids of 50 ms, half a step apart, so that no cluster of equal lengths is divided by a border.
    length, count = max(
        (
            db.one(
                f"SELECT median(duration_s), count(*) FROM audit WHERE duration_s IS NOT NULL "
                f"GROUP BY {grid}(duration_s / 0.05) ORDER BY 2 DESC, 1 LIMIT 1"
            )
            for grid in ("round", "floor")
        ),
        key=lambda found: found[1],
    )
    if count < policy.balance.same_length_warn_above_frac * total:
        return []
    sentence = f"{count} of {total} clips are {length:.2f} s long: they were cut by a clock, not at pauses."
    rows = f"abs(duration_s - {length}) <= 0.025"
    return [Finding(severity="warning", sentence=sentence, count=count, rows=rows)]


def _overlapping(db: Database, policy: Policy) -> list[Finding]:
    rows = (
        "row IN (SELECT row FROM (SELECT row, start_s, max(end_s) OVER (PARTITION BY file_name ORDER BY start_s, row "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM audit WHERE start_s IS NOT NULL) "
        "WHERE before - start_s > 0.1)"
    )
    count = _count(db, rows)
    sentence = f"{count} spans begin more than 0.1 s before another span of the same file has ended."
    return [Finding(severity="warning", sentence=sentence, count=count, rows=rows)] if count else []


def _levels(db: Database, policy: Policy) -> list[Finding]:
    low, high = db.one(
        "SELECT quantile_cont(level_lufs, 0.05), quantile_cont(level_lufs, 0.95) FROM audit WHERE NOT is_silent"
    )
    if low is None or high - low <= policy.balance.level_spread_note_above_db:
        return []
    sentence = f"Loudness spreads over {high - low:.0f} dB (5th to 95th percentile)."
    return [Finding(severity="note", sentence=sentence, count=1, unit="corpus")]


def _channels_differ(db: Database, policy: Policy) -> list[Finding]:
    medians = dict(db.rows("SELECT split, median(bandwidth_hz) FROM audit WHERE split IS NOT NULL AND "
                           "bandwidth_hz IS NOT NULL AND NOT is_silent GROUP BY 1 ORDER BY 1"))  # fmt: skip
    train = medians.pop("train", None)
    found = []
    for split, hz in medians.items():
        if train is not None and abs(hz - train) > policy.balance.bandwidth_gap_note_above_hz:
            sentence = f"Median bandwidth is {train:.0f} Hz in train and {hz:.0f} Hz in {split}: the channels differ."
            found.append(Finding(severity="note", sentence=sentence, count=1, unit="splits"))
    return found


def _same_texts(db: Database, policy: Policy) -> list[Finding]:
    total = _count(db, "true")
    count = _count(db, "text_copies > 1")
    if not total or count <= policy.balance.duplicate_text_note_above_frac * total:
        return []
    sentence = f"{count} of {total} utterances have a text that another has: fewer words to learn than hours suggest."
    return [Finding(severity="note", sentence=sentence, count=count, rows="text_copies > 1")]


def _oov(db: Database, policy: Policy) -> list[Finding]:
    found = []
    for split, tokens, unseen in db.rows(
        "SELECT split, sum(n), sum(n) FILTER (first_share IS NULL) FROM evaluation_words GROUP BY 1 ORDER BY 1"
    ):
        if tokens and (unseen or 0) > policy.balance.oov_warn_above_frac * tokens:
            sentence = f"{unseen / tokens:.0%} of the running words of {split} are not in train."
            found.append(Finding(severity="warning", sentence=sentence, count=int(unseen), unit="words"))
    return found


def _mixed_conventions(db: Database, policy: Policy) -> list[Finding]:
    total = _count(db, "words > 0")
    share = policy.text.conventions_note_above_frac
    found = []
    cased = dict(db.rows("SELECT casing, count(*) FROM audit WHERE casing IS NOT NULL GROUP BY 1 ORDER BY 1"))
    most = max(cased.values(), default=0)
    if cased and most < (1 - share) * sum(cased.values()):
        shares = ", ".join(f"{name} {count}" for name, count in cased.items())
        found.append(Finding(severity="warning", sentence=f"Casing is mixed: {shares}.", count=len(cased),
                             unit="casings"))  # fmt: skip
    digits = _count(db, "digits > 0")
    if total and digits > share * total:
        sentence = f"{digits} of {total} texts have digits, others spell numbers out."
        found.append(Finding(severity="note", sentence=sentence, count=digits, rows="digits > 0"))
    return found


def _all_capitals(db: Database, policy: Policy) -> list[Finding]:
    upper, cased = db.one("SELECT count(*) FILTER (casing = 'upper'), count(casing) FROM audit")
    if not cased or upper < (1 - policy.text.conventions_note_above_frac) * cased:
        return []
    sentence = f"{upper} of {cased} texts are in capitals."
    return [Finding(severity="note", sentence=sentence, count=upper, rows="casing = 'upper'")]


def _label_noise(db: Database, policy: Policy) -> list[Finding]:
    suspicious, total = label_noise_counts(db)
    share = suspicious / total if total else 0.0
    limits = policy.label_noise
    if share <= limits.note_above_frac:
        return []
    severity: Severity = "warning" if share > limits.warn_above_frac else "note"
    sentence = (
        f"{suspicious} of {total} transcripts are probably wrong ({share:.1%}), by what can be seen without a model."
    )
    return [Finding(severity=severity, sentence=sentence, count=suspicious, rows=SUSPICIOUS)]


_NAMES = ", ".join(map(quoted, LABEL_ERROR_CHECKS))
SUSPICIOUS = f"(list_has_any(errors, [{_NAMES}]) OR list_has_any(warnings, [{_NAMES}]))"
"""SQL for the utterances whose transcript is probably wrong."""


def label_noise_counts(db: Database) -> tuple[int, int]:
    """How many transcripts are probably wrong, of how many whose audio can be read."""
    found = db.one(f"SELECT count(*) FILTER ({SUSPICIOUS}), count(*) FROM audit WHERE audio_error IS NULL")
    return int(found[0]), int(found[1])


CORPUS_CHECKS: tuple[CorpusCheck, ...] = (
    CorpusCheck("duplicate_id", "utterance ids that occur twice", "Rows overwrite each other in every later step.",
                "Make the ids unique.", "schema of the corpus", _twice),
    CorpusCheck("audio_without_row", "recordings without a row", "Data that is paid for and not used.",
                "Import them, or move them away.", "DA-15", _orphans),
    CorpusCheck("speaker_leakage", "speakers in more than one split", "Scores measure memory of voices, not skill.",
                "speechtune split CORPUS --overwrite", "children plan, step 1.4",
                _shared("speaker_id", "error", "speakers")),
    CorpusCheck("session_leakage", "sessions in more than one split", "Room, microphone and topic are memorised.",
                "speechtune split CORPUS --by session_id --overwrite", "children plan, step 1.4",
                _shared("session_id", "error", "sessions")),
    CorpusCheck("audio_leakage", "the same audio in more than one split", "The answer is in the training data.",
                "Remove the copies, then split again.", "issue section 1", _audio_leak),
    CorpusCheck("text_leakage", "test texts that are in train", "The decoder can recite instead of recognising.",
                "Split by prompt, or add free speech to the test.", "WINNERS trap 7; children plan", _text_leak),
    CorpusCheck("column_unknown", "columns without values", "Some checks could not be made.",
                "Import with --speaker-from, --language; run speechtune split.", "D7", _unknown),
    CorpusCheck("split_small", "small evaluation splits", "Differences between models drown in chance.",
                "Hold out more speakers.", "notebook C-9", _small_splits),
    CorpusCheck("volume_small", "little audio to learn from", "Risk of overfitting; small gains.",
                "Add audio up to the next volume tier, which the summary names.", "notebook C-8, DA8", _volume),
    CorpusCheck("speakers_few", "few speakers", "The model learns these voices.", "Record more people.",
                "DA-19, DA8", _few_speakers),
    CorpusCheck("speaker_dominance", "one speaker has most of the audio", "The model learns this voice.",
                "Weight or cap the speaker.", "DA-19", _dominance("speaker_id", "Speaker")),
    CorpusCheck("age_imbalance", "age groups out of balance", "Rare ages are recognised worst.",
                "Weighted sampling by age.", "children plan, step 1.3", _dominance("age", "Age group")),
    CorpusCheck("gender_imbalance", "genders out of balance", "The rarer voice is recognised worse.",
                "Weighted sampling by gender.", "DA-19", _dominance("gender", "Gender")),
    CorpusCheck("source_imbalance", "sources out of balance", "The larger source sets channel and style.",
                "Mix by ratio.", "DA-19, D15", _dominance("source", "Source")),
    CorpusCheck("same_length", "clips of one length", "Words are cut at the edges; the model learns one length.",
                "Segment again at pauses or by alignment.", "DA-7, DA11", _same_length),
    CorpusCheck("overlapping_spans", "spans of one file that overlap", "Words are in two utterances.",
                "Correct the spans.", "E-14", _overlapping),
    CorpusCheck("level_spread", "loudness differs much between clips", "Level is learnt as a trait of the speaker.",
                "Normalise levels (speechtune prepare).", "DA-20", _levels),
    CorpusCheck("channel_mismatch", "splits with different bandwidth", "Test conditions are not those of training.",
                "Bring both to one channel, or augment.", "children plan, step 1.2", _channels_differ),
    CorpusCheck("texts_repeat", "many equal texts", "Few different words for the hours.",
                "Record other prompts.", "DA-13, D11", _same_texts),
    CorpusCheck("oov_high", "words of the test that train never has", "Spelling of unseen words must be guessed.",
                "Add text and audio with these words.", "issue section 1", _oov),
    CorpusCheck("conventions_mixed", "mixed text conventions", "Several spellings compete for each word.",
                "speechtune prepare with one text policy.", "D9, DA-18", _mixed_conventions),
    CorpusCheck("all_capitals", "texts in capitals", "Pre-trained models spell capitals in long, rare tokens.",
                "Train with data.case=lower, or speechtune prepare.", "docs/training.md (data.case)", _all_capitals),
    CorpusCheck("label_noise", "probably wrong transcripts", "Accuracy is capped by wrong labels.",
                "Look at the problems it sums up; run a cross-model check.", "DA-25, D14", _label_noise),
)  # fmt: skip

CORPUS_LIMITS: dict[str, tuple[str, ...]] = {
    "split_small": ("volume.eval_error_below_min", "volume.eval_warn_below_min"),
    "volume_small": ("volume.error_below_h", "volume.warn_below_h", "volume.note_below_h"),
    "speakers_few": ("volume.speakers_note_below",),
    "speaker_dominance": ("balance.speaker_share_warn_above_frac",),
    "age_imbalance": ("balance.group_share_warn_above_frac", "balance.group_share_note_below_frac"),
    "gender_imbalance": ("balance.group_share_warn_above_frac", "balance.group_share_note_below_frac"),
    "source_imbalance": ("balance.group_share_warn_above_frac", "balance.group_share_note_below_frac"),
    "same_length": ("balance.same_length_min_clips", "balance.same_length_warn_above_frac"),
    "level_spread": ("balance.level_spread_note_above_db",),
    "channel_mismatch": ("balance.bandwidth_gap_note_above_hz",),
    "texts_repeat": ("balance.duplicate_text_note_above_frac",),
    "text_leakage": ("balance.prompt_leak_warn_above_frac",),
    "oov_high": ("balance.oov_warn_above_frac",),
    "conventions_mixed": ("text.conventions_note_above_frac",),
    "all_capitals": ("text.conventions_note_above_frac",),
    "label_noise": ("label_noise.warn_above_frac", "label_noise.note_above_frac"),
}
"""The limits of the policy by which each check of the whole corpus judges; the others count without one."""
