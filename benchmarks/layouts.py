"""Real recordings in the layouts of other tools, written and read by those tools' own libraries where there are any.

Two directions, for every layout that speechtune reads or writes:

- *import*: a part of a corpus, a third of its texts replaced by ones that break careless readers, is written in the
  layout (by a peer's library, or after the layout's published description); a peer reads it, and ``speechtune import``.
- *export*: ``speechtune export-corpus`` writes it, and a peer reads that.

Both must hold every transcript unchanged.

    python benchmarks/layouts.py --corpus CORPUS [--clips 60] [--out layouts.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio
from speechtune.core.files import write_json
from speechtune.corpus.exporting import export_corpus
from speechtune.corpus.importing import Fill, import_corpus
from speechtune.corpus.table import Corpus, Utterance

HARD = (
    "commas, \"quotes\", and 'apostrophes'; semicolons",
    "None",
    "123",
    "null",
    "emoji 👩‍👧 🇮🇱",
    "e\u0301 decomposed beside \u00e9 composed",
    "\u05e9\u05dc\u05d5\u05dd mixed עברית 12",
    "తెలుగు పాఠం",
    "-5 degrees = cold",
    "a | pipe # hash % percent & more",
)
GAP_S = 0.3
Texts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance to be written; ``start_s`` is its place in the joined recording."""

    key: str
    text: str
    speaker: str
    samples: np.ndarray
    start_s: float

    @property
    def end_s(self) -> float:
        return round(self.start_s + len(self.samples) / SAMPLE_RATE_HZ, 3)


def clips_of(corpus: Corpus, count: int) -> list[Clip]:
    """Every n-th utterance of a corpus, every third with a hard text."""
    chosen, at_s = [], 0.5
    for number, row in enumerate(corpus.utterances[:: max(1, len(corpus) // count)][:count]):
        samples = load_audio(corpus.path_of(row), row.start_s, row.end_s)
        samples = samples[: len(samples) // 16 * 16]  # whole milliseconds
        text = HARD[number // 3 % len(HARD)] if number % 3 == 2 else row.text
        chosen.append(Clip(f"{number:04d}", text, str(row.speaker_id), samples, round(at_s, 3)))
        at_s += len(samples) / SAMPLE_RATE_HZ + GAP_S
    return chosen


def save(path: Path, samples: np.ndarray) -> Path:
    """16-bit audio with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def joined(clips: list[Clip], path: Path) -> Path:
    """All clips in one recording."""
    whole = np.zeros(round((clips[-1].end_s + 1) * SAMPLE_RATE_HZ), dtype=np.float32)
    for clip in clips:
        first = round(clip.start_s * SAMPLE_RATE_HZ)
        whole[first : first + len(clip.samples)] = clip.samples
    return save(path, whole)


def put(path: Path, text: str) -> None:
    """A UTF-8 file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def librispeech(clips: list[Clip], root: Path) -> Texts:
    """openslr.org/12; read by lhotse's recipe."""
    from lhotse.recipes import prepare_librispeech

    top = root / "LibriSpeech"
    lines: dict[str, list[str]] = {}
    for clip in clips:
        speaker = str(int(clip.speaker))
        save(top / f"dev-clean/{speaker}/1/{speaker}-1-{clip.key}.flac", clip.samples)
        lines.setdefault(speaker, []).append(f"{speaker}-1-{clip.key} {clip.text}\n")
    for speaker, some in lines.items():
        put(top / f"dev-clean/{speaker}/1/{speaker}-1.trans.txt", "".join(some))
    found = prepare_librispeech(top, dataset_parts=["dev-clean"])["dev-clean"]["supervisions"]
    return {one.id[-4:]: one.text for one in found}


def mls(clips: list[Clip], root: Path) -> Texts:
    """openslr.org/94; read by lhotse's recipe, which wants all three splits."""
    from lhotse.recipes.mls import prepare_mls

    top = root / "mls_english"
    speakers = sorted({str(int(clip.speaker)) for clip in clips})
    put(
        top / "metainfo.txt",
        "\n".join([" SPEAKER | GENDER | PARTITION ", *(f" {one} | F | train " for one in speakers)]),
    )
    lines: dict[str, str] = {"train": "", "dev": "", "test": ""}
    for number, clip in enumerate(clips):
        split, speaker = ("train", "dev", "test")[number % 3], str(int(clip.speaker))
        save(top / split / f"audio/{speaker}/7/{speaker}_7_{clip.key}.flac", clip.samples)
        lines[split] += f"{speaker}_7_{clip.key}\t{clip.text}\n"
    for split, text in lines.items():
        put(top / split / "transcripts.txt", text)
    found = prepare_mls(root, opus=False)["english"]
    return {one.id[-4:]: one.text for part in found.values() for one in part["supervisions"]}


def fleurs(clips: list[Clip], root: Path) -> Texts:
    """huggingface.co/datasets/google/fleurs; read by lhotse's recipe from a copy in its own arrangement of folders."""
    from lhotse.recipes.fleurs import prepare_single_fleurs_language

    peer = root.parent / "fleurs_of_lhotse"
    tables: dict[str, str] = {"train": "", "dev": "", "test": ""}
    for number, clip in enumerate(clips):
        split = ("train", "dev", "test")[number % 3]
        save(root / f"en_us/audio/{split}/{clip.key}.wav", clip.samples)
        save(peer / f"en_us/{split}/{clip.key}.wav", clip.samples)
        cells = (f"{number}", f"{clip.key}.wav", clip.text, clip.text, "x |", str(len(clip.samples)), "FEMALE")
        tables[split] += "\t".join(cells) + "\n"
    for split, text in tables.items():
        put(root / f"en_us/{split}.tsv", text)
        put(peer / f"metadata/en_us/{split}.tsv", text)
    found = prepare_single_fleurs_language(peer / "en_us")
    return {one.recording_id: one.custom["raw_text"] for part in found.values() for one in part["supervisions"]}


def common_voice(clips: list[Clip], root: Path) -> Texts:
    """A release of Mozilla Common Voice; read by lhotse's recipe."""
    from lhotse.recipes.commonvoice import prepare_commonvoice

    header = [
        "client_id",
        "path",
        "sentence",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "variant",
        "locale",
        "segment",
    ]
    tables = {split: "\t".join(header) + "\n" for split in ("train", "dev", "test")}
    for number, clip in enumerate(clips):
        save(root / f"en/clips/common_voice_en_{clip.key}.flac", clip.samples)
        cells = (
            clip.speaker,
            f"common_voice_en_{clip.key}.flac",
            clip.text,
            "2",
            "0",
            "teens",
            "female",
            "",
            "",
            "en",
            "",
        )
        tables[("train", "dev", "test")[number % 3]] += "\t".join(cells) + "\n"
    for split, text in tables.items():
        put(root / f"en/{split}.tsv", text)
    found = prepare_commonvoice(root, root.parent / "cv_manifests", languages="en")["en"]
    return {one.id[-4:]: one.text for part in found.values() for one in part["supervisions"]}


def voxforge(clips: list[Clip], root: Path) -> Texts:
    """voxforge.org's submissions; no peer reads them here."""
    for clip in clips:
        top = root / f"user{clip.speaker}-20100101-abc"
        save(top / f"wav/a{clip.key}.wav", clip.samples)
        path = top / "etc/PROMPTS"
        known = path.read_text(encoding="utf-8") if path.is_file() else ""
        put(path, f"{known}{top.name}/mfc/a{clip.key} {clip.text}\n")
    return {}


def indicvoices(clips: list[Clip], root: Path) -> Texts:
    """The raw download, as TGZ/create_indicvoices.py of AI4Bharat's repository reads it; no peer reads it here."""
    joined(clips, root / "Telugu/v1/valid/talk.wav")
    pieces = [{"start": c.start_s, "end": c.end_s, "text": c.text, "speaker_id": 0} for c in clips]
    sidecar = {"verbatim": pieces, "normalized": pieces, "speaker_id": "S1", "gender": "Female", "age_group": "18-30"}
    put(root / "Telugu/v1/valid/talk.json", json.dumps(sidecar, ensure_ascii=False))
    return {}


def lhotse(clips: list[Clip], root: Path) -> Texts:
    """Manifests made and read by lhotse."""
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

    recordings, said = [], []
    for clip in clips:
        recordings.append(Recording.from_file(save(root / f"wav/{clip.key}.wav", clip.samples)))
        duration = recordings[-1].duration
        said.append(SupervisionSegment(clip.key, clip.key, 0.0, duration, text=clip.text, speaker=clip.speaker))
    RecordingSet.from_recordings(recordings).to_file(root / "recordings.jsonl.gz")
    SupervisionSet.from_segments(said).to_file(root / "supervisions.jsonl.gz")
    return {one.id: one.text for one in SupervisionSet.from_file(root / "supervisions.jsonl.gz")}


def nemo(clips: list[Clip], root: Path) -> Texts:
    """A NeMo manifest with offsets, after NVIDIA's documentation; NeMo and ``datasets`` read it as JSON lines."""
    from datasets import load_dataset

    joined(clips, root / "talk.wav")
    rows = [
        {"audio_filepath": "talk.wav", "offset": c.start_s, "duration": round(c.end_s - c.start_s, 3), "text": c.text}
        for c in clips
    ]
    put(root / "manifest.json", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    files = {"data_files": str(root / "manifest.json"), "cache_dir": str(root.parent / "hf")}
    return {str(number): row["text"] for number, row in enumerate(load_dataset("json", split="train", **files))}


def textgrid(clips: list[Clip], root: Path) -> Texts:
    """Written and read by praatio."""
    from praatio import textgrid as praat

    joined(clips, root / "talk.wav")
    grid = praat.Textgrid()
    entries = [(clip.start_s, clip.end_s, clip.text) for clip in clips]
    grid.addTier(praat.IntervalTier("Ann", entries, 0, clips[-1].end_s + 1))
    grid.save(str(root / "talk.TextGrid"), format="long_textgrid", includeBlankSpaces=True)
    tier = praat.openTextgrid(str(root / "talk.TextGrid"), includeEmptyIntervals=False).getTier("Ann")
    return {str(number): entry.label for number, entry in enumerate(tier.entries)}


def elan(clips: list[Clip], root: Path) -> Texts:
    """Written and read by pympi."""
    from pympi import Eaf

    media = joined(clips, root / "talk.wav")
    document = Eaf(author="layouts")
    document.add_linked_file(str(media), mimetype="audio/x-wav")
    document.remove_tier("default")
    document.add_tier("Ann")
    for clip in clips:
        document.add_annotation("Ann", round(clip.start_s * 1000), round(clip.end_s * 1000), clip.text)
    document.to_file(str(root / "talk.eaf"))
    tier = Eaf(str(root / "talk.eaf")).get_annotation_data_for_tier("Ann")
    return {str(number): one[2] for number, one in enumerate(sorted(tier))}


def subtitles(clips: list[Clip], root: Path) -> Texts:
    """Written by pysubs2 as SRT, read by webvtt-py."""
    import pysubs2
    import webvtt

    joined(clips, root / "talk.wav")
    track = pysubs2.SSAFile()
    for clip in clips:
        track.append(pysubs2.SSAEvent(round(clip.start_s * 1000), round(clip.end_s * 1000), clip.text))
    track.save(str(root / "talk.srt"))
    captions: Any = webvtt.from_srt(str(root / "talk.srt"))
    return {str(number): one.text for number, one in enumerate(captions)}


def whisper_json(clips: list[Clip], root: Path) -> Texts:
    """Written by the writer of the openai-whisper package."""
    from whisper.utils import get_writer

    media = joined(clips, root / "talk.wav")
    pieces = [{"id": n, "start": c.start_s, "end": c.end_s, "text": f" {c.text}"} for n, c in enumerate(clips)]
    get_writer("json", str(root))({"text": "", "segments": pieces, "language": "en"}, str(media), {})
    return {}


def chat(clips: list[Clip], root: Path) -> Texts:
    """After TalkBank's manual, texts of plain words; read by pylangacq."""
    import pylangacq

    joined(clips, root / "talk.wav")
    head = "@UTF8\n@Begin\n@Languages:\teng\n@Participants:\tCHI Child\n"
    head += "@ID:\teng|x|CHI|6;00.||||Child|||\n@Media:\ttalk, audio\n"
    body = "".join(f"*CHI:\t{c.text} . \x15{round(c.start_s * 1000)}_{round(c.end_s * 1000)}\x15\n" for c in clips)
    put(root / "talk.cha", f"{head}{body}@End\n")
    said = pylangacq.read_chat(str(root / "talk.cha")).utterances()
    return {
        str(number): " ".join(token.word for token in one.tokens or () if token.word != ".")
        for number, one in enumerate(said)
    }


IMPORTS: dict[str, tuple[Callable[[list[Clip], Path], Texts], tuple[str, ...], str]] = {
    "librispeech": (librispeech, (), "lhotse's recipe"),
    "mls": (mls, (), "lhotse's recipe"),
    "fleurs": (fleurs, (), "lhotse's recipe"),
    "common_voice": (common_voice, (), "lhotse's recipe"),
    "voxforge": (voxforge, (), ""),
    "indicvoices": (indicvoices, (), ""),
    "lhotse": (lhotse, (), "lhotse"),
    "nemo": (nemo, (), "datasets"),
    "textgrid": (textgrid, (), "praatio"),
    "elan": (elan, (), "pympi"),
    "subtitles": (subtitles, ("filter=mark",), "webvtt-py"),
    "whisper_json": (whisper_json, (), "(written by openai-whisper)"),
    "chat": (chat, ("punctuation=drop",), "pylangacq"),
}
PLAIN_ONLY = ("chat",)
INSIDE = {"mls": "mls_english", "fleurs": "en_us", "common_voice": "en"}
"""The folder of one language, where the peer wants the one above."""


def unchanged(wanted: list[str], found: list[str]) -> int:
    """How many texts were found as they were written."""
    return (Counter(wanted) & Counter(found)).total()


def imported(name: str, clips: list[Clip], folder: Path) -> dict[str, object]:
    """Write, read with the peer, import, compare."""
    write, settings, peer = IMPORTS[name]
    clips = [clip for clip in clips if clip.text not in HARD] if name in PLAIN_ONLY else clips
    root = folder / name
    root.mkdir(parents=True)
    theirs = list(write(clips, root).values())
    source = root / INSIDE.get(name, "")
    result = import_corpus(source, folder / f"{name}-out", fill=Fill(settings=settings))
    rows = Corpus.load(folder / f"{name}-out")
    wanted = [clip.text for clip in clips]
    length_s = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ
    return {
        "layout": name,
        "format_recognised": result.format == name,
        "utterances": len(clips),
        "ours_unchanged": unchanged(wanted, [row.text for row in rows]),
        "seconds_differ": round(abs(rows.seconds_of_audio - length_s), 3),
        "peer": peer,
        "peer_unchanged": unchanged(wanted, theirs) if theirs else None,
    }


def _lhotse_texts(folder: Path) -> list[str]:
    from lhotse import CutSet

    return [cut.supervisions[0].text for path in folder.glob("cuts*.jsonl.gz") for cut in CutSet.from_file(path)]


def _kaldi_texts(folder: Path) -> list[str]:
    from lhotse.kaldi import load_kaldi_data_dir

    parts = [path.parent for path in folder.rglob("wav.scp")]
    return [one.text for part in parts for one in load_kaldi_data_dir(part, SAMPLE_RATE_HZ)[1]]


def _json_texts(folder: Path) -> list[str]:
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.glob("*.json*") if path.name != "export.json")
    rows = load_dataset("json", data_files=files, split="train", cache_dir=str(folder.parent / "hf"))
    return [row["text"].rpartition("<asr_text>")[2] for row in rows]


def _metadata_texts(folder: Path) -> list[str]:
    from datasets import load_dataset

    files = str(folder / "metadata.jsonl")  # the audiofolder builder of datasets 5 does not begin without torchcodec
    return list(load_dataset("json", data_files=files, split="train", cache_dir=str(folder.parent / "hf"))["text"])


EXPORTS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "lhotse": (_lhotse_texts, "lhotse.CutSet"),
    "kaldi": (_kaldi_texts, "lhotse.kaldi"),
    "nemo": (_json_texts, "datasets json"),
    "qwen3_asr": (_json_texts, "datasets json"),
    "audiofolder": (_metadata_texts, "datasets json"),
}


def exported(name: str, clips: list[Clip], folder: Path) -> dict[str, object]:
    """Export, read with the peer, import again, compare."""
    root = folder / "corpus"
    rows = []
    for clip in clips:
        seconds = len(clip.samples) / SAMPLE_RATE_HZ
        row = Utterance(utterance_id=clip.key, file_name=f"audio/{clip.key}.wav", text=clip.text, duration_s=seconds)
        row.speaker_id = clip.speaker
        save(root / row.file_name, clip.samples)
        rows.append(row)
    corpus = Corpus(root, rows, {"kept": len(rows)})
    corpus.save()
    export_corpus(corpus, name, folder / name, audio="copy")
    read, peer = EXPORTS[name]
    theirs = read(folder / name)
    import_corpus(folder / name, folder / f"{name}-back")
    back = {row.utterance_id: row.text for row in Corpus.load(folder / f"{name}-back")}
    wanted = [clip.text for clip in clips]
    return {
        "layout": name,
        "utterances": len(clips),
        "ours_unchanged": sum(back.get(clip.key) == clip.text for clip in clips),
        "peer": peer,
        "peer_unchanged": unchanged(wanted, theirs),
    }


def main() -> None:
    """Run both directions and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--only", nargs="*", help="these layouts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    clips = clips_of(Corpus.load(options.corpus), options.clips)
    found: dict[str, list[dict[str, object]]] = {"import": [], "export": []}
    for direction, names, work in (("import", IMPORTS, imported), ("export", EXPORTS, exported)):
        for name in options.only or names:
            if name not in names:
                continue
            folder = Path(tempfile.mkdtemp())
            try:
                found[direction].append(work(name, clips, folder))
            finally:
                shutil.rmtree(folder)
            print(direction, json.dumps(found[direction][-1]), flush=True)
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
