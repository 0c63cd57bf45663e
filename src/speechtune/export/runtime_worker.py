"""Transcribes clips with one runtime and nothing of speechtune: ``python runtime_worker.py JOB_DIRECTORY``.

It is a file of its own, so that any interpreter that holds the runtime and NumPy can run it, and so that a runtime that
aborts its process (whisper.cpp does on a file it dislikes) takes nothing with it. ``JOB_DIRECTORY`` holds ``job.json``
and ``clips.npz``; ``result.json`` is written there. Arrays: ``wave_N`` float32 [samples] at 16 kHz, ``features_N``
float32 [mels, frames] where the runtime takes features; N is the ``array`` of a clip. The clips of ``timed`` are
decoded once more, with timestamps.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Ends = tuple[float, float]
"""Where the first timestamp of a clip is, and the last, in seconds."""
Row = tuple[str, "int | None", "bool | None", "Ends | None"]
"""Text, tokens generated, whether the end-of-text token came, its ends; ``None`` where the runtime does not say."""


def ends_of(job: dict[str, Any], tokens: list[int]) -> Ends | None:
    """The first and the last timestamp among tokens."""
    times = [0.02 * (token - job["first_timestamp"]) for token in tokens if token >= job["first_timestamp"]]
    return (times[0], times[-1]) if len(times) > 1 else None


def spoken(job: dict[str, Any], tokens: list[int]) -> list[int]:
    """Tokens without timestamps."""
    return [token for token in tokens if token < job["first_timestamp"]]


def ctranslate2(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """CTranslate2's own ``generate`` on given features, with the suppressed tokens that the artefact's config names."""
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper
    from tokenizers import Tokenizer

    model = Whisper(
        job["artefact"], device="cpu", compute_type=job.get("compute_type", "default"), intra_threads=job["threads"]
    )
    tokenizer = Tokenizer.from_file(str(Path(job["artefact"]) / "tokenizer.json"))
    if model.is_multilingual != job["multilingual"]:
        raise SystemExit(f"error: CTranslate2 says multilingual is {model.is_multilingual}, which is wrong")
    timestamps = job.get("timestamps", False)
    suppressed = [-1] if timestamps else [-1, *range(job["first_timestamp"], job["vocabulary"])]
    for clip in job["clips"]:
        features = np.ascontiguousarray(arrays[f"features_{clip['array']}"][None])
        found = model.generate(
            StorageView.from_array(features),
            [job["prompt"][:-1] if timestamps else job["prompt"]],
            beam_size=1,
            max_length=2 * job["limit"],  # CTranslate2 generates half of it
            suppress_tokens=suppressed,
        )[0].sequences_ids[0]
        yield tokenizer.decode(spoken(job, found)).strip(), len(found), len(found) < job["limit"], ends_of(job, found)


def faster_whisper(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """faster-whisper as people call it, greedy and without its fallbacks; it pads every clip to 30 s."""
    from faster_whisper import WhisperModel

    model = WhisperModel(
        job["artefact"],
        device="cpu",
        compute_type=job.get("compute_type", "default"),
        cpu_threads=job["threads"],
        local_files_only=True,
    )
    timestamps = job.get("timestamps", False)
    for clip in job["clips"]:
        segments, _info = model.transcribe(
            arrays[f"wave_{clip['array']}"],
            language=job["language"] or "en",
            beam_size=1,
            temperature=0.0,
            without_timestamps=not timestamps,
            max_new_tokens=2 * job["limit"] - len(job["prompt"]),  # CTranslate2 generates half of the two together
            condition_on_previous_text=False,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        parts = list(segments)
        tokens = sum(len(part.tokens) for part in parts)
        ends = (parts[0].start, parts[-1].end) if timestamps and parts else None
        yield " ".join(part.text.strip() for part in parts).strip(), tokens, None, ends


def whisper_cpp(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """whisper.cpp through pywhispercpp; ``audio_ctx`` (encoder positions) is half of a clip's frames at fit context."""
    from pywhispercpp.model import Model

    model = Model(
        job["artefact"],
        n_threads=job["threads"],
        redirect_whispercpp_logs_to=None,
        context_params={"flash_attn": job.get("flash_attn", True), "use_gpu": False},
    )
    timestamps = job.get("timestamps", False)
    for clip in job["clips"]:
        wave = arrays[f"wave_{clip['array']}"]
        wave = np.pad(wave, (0, max(0, 17_600 - len(wave))))  # whisper.cpp refuses less than a second
        segments = model.transcribe(
            wave,
            language=job["language"] or "en",
            audio_ctx=clip["frames"] // 2 if job["context"] == "fit" else 0,
            no_timestamps=not timestamps,
            single_segment=not timestamps,
            no_context=True,
            suppress_blank=True,
            suppress_nst=True,
            temperature=0.0,
            temperature_inc=0.0,
            greedy={"best_of": 1},
            max_tokens=0,
            print_progress=False,
            print_realtime=False,
        )
        ends = (0.01 * segments[0].t0, 0.01 * segments[-1].t1) if timestamps and segments else None
        yield " ".join(part.text.strip() for part in segments).strip(), None, None, ends


def openai_whisper(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """OpenAI's package; its encoder takes the full context only."""
    import torch
    import whisper
    from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim

    torch.set_num_threads(job["threads"])
    model = whisper.load_model(job["artefact"], device="cpu")
    timestamps = job.get("timestamps", False)
    barred = [] if timestamps else range(job["first_timestamp"], job["vocabulary"])
    options = whisper.DecodingOptions(
        language=job["language"] or "en",
        without_timestamps=not timestamps,
        fp16=False,
        sample_len=job["limit"],
        suppress_tokens=[*job["suppress"], *barred],
    )
    for clip in job["clips"]:
        wave = pad_or_trim(torch.from_numpy(arrays[f"wave_{clip['array']}"]), N_SAMPLES)
        mel = log_mel_spectrogram(wave, model.dims.n_mels)
        found = whisper.decode(model, pad_or_trim(mel, N_FRAMES), options)
        tokens = list(found.tokens)
        yield found.text.strip(), len(tokens), len(tokens) < job["limit"], ends_of(job, tokens)


def transformers(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """Transformers alone: its processor and its ``generate``, at full context."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    path = job["artefact"]
    weights = job.get("base", path)
    model: Any = WhisperForConditionalGeneration.from_pretrained(weights, dtype="auto", local_files_only=True).eval()
    if "base" in job:  # the artefact is an adapter
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    processor: Any = WhisperProcessor.from_pretrained(path, local_files_only=True)
    options: dict[str, Any] = {"language": job["language"], "task": "transcribe"} if job["multilingual"] else {}
    if job.get("timestamps", False):
        options["return_timestamps"] = True
    for clip in job["clips"]:
        given = processor.feature_extractor(
            arrays[f"wave_{clip['array']}"], sampling_rate=16_000, return_tensors="pt", return_attention_mask=True
        )
        with torch.inference_mode():
            found = model.generate(
                given.input_features.to(model.dtype),
                attention_mask=given.attention_mask,
                max_new_tokens=job["limit"],
                **options,
            )[0].tolist()
        ends = ends_of(job, found)
        text = [token for token in spoken(job, found) if token not in job["prompt"]]
        text = text[: text.index(job["eot"])] if job["eot"] in text else text
        said = processor.tokenizer.decode(text, skip_special_tokens=True).strip()
        yield said, len(text), len(text) < job["limit"], ends


def onnxruntime(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """ONNX Runtime: encoder once, then the merged decoder with its cache, greedily, on given features."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    folder = Path(job["artefact"])
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = job["threads"]
    settings.log_severity_level = 3
    suffix = job.get("suffix", "")
    files = [folder / "onnx" / f"{name}{suffix}.onnx" for name in ("encoder_model", "decoder_model_merged")]
    encoder, decoder = (ort.InferenceSession(str(f), settings, providers=["CPUExecutionProvider"]) for f in files)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    caches = [one for one in decoder.get_inputs() if one.name.startswith("past_key_values.")]
    names = [one.name for one in decoder.get_outputs()]
    barred = [*job["suppress"], *range(job["first_timestamp"], job["vocabulary"])]
    for clip in job["clips"]:
        hidden = encoder.run(None, {"input_features": arrays[f"features_{clip['array']}"][None]})[0]
        past = {one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in caches}
        tokens: list[int] = []
        given = np.array([job["prompt"]], dtype=np.int64)
        ended = False
        while len(tokens) < job["limit"]:
            feeds = {"input_ids": given, "encoder_hidden_states": hidden, **past}
            feeds["use_cache_branch"] = np.array([bool(tokens)])
            found = dict(zip(names, decoder.run(None, feeds), strict=True))
            scores = found["logits"][0, -1].copy()
            scores[barred] = -np.inf
            if not tokens:
                scores[job["begin_suppress"]] = -np.inf
            best = int(scores.argmax())
            if best == job["eot"]:
                ended = True
                break
            tokens.append(best)
            given = np.array([[best]], dtype=np.int64)
            past = {name: found[name.replace("past_key_values", "present")] for name in past}
        yield tokenizer.decode(tokens).strip(), len(tokens), ended, None


def onnx_asr(job: dict[str, Any], arrays: Any) -> Iterator[Row]:
    """onnx-asr with its own features; it suppresses no tokens and always names a language."""
    import onnx_asr as package

    model = package.load_model("whisper", job["artefact"], quantization=job.get("quantisation"))
    for clip in job["clips"]:
        said = model.recognize(arrays[f"wave_{clip['array']}"], language=job["language"] or "en")
        yield str(said).strip(), None, None, None


RUNTIMES: dict[str, tuple[Callable[[dict[str, Any], Any], Iterator[Row]], tuple[str, ...]]] = {
    "ctranslate2": (ctranslate2, ("ctranslate2",)),
    "faster-whisper": (faster_whisper, ("faster-whisper", "ctranslate2")),
    "whisper.cpp": (whisper_cpp, ("pywhispercpp",)),
    "openai-whisper": (openai_whisper, ("openai-whisper", "torch")),
    "transformers": (transformers, ("transformers", "torch")),
    "onnxruntime": (onnxruntime, ("onnxruntime",)),
    "onnx-asr": (onnx_asr, ("onnx-asr", "onnxruntime")),
}
"""Each runtime, and the packages whose versions say what it was."""


def end_with(parent: int) -> None:
    """End this process soon after its parent has ended: nobody reads the result of an export that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: Path) -> None:
    """Do the job of ``folder`` and write ``result.json`` there."""
    end_with(os.getppid())
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    run, packages = RUNTIMES[job["runtime"]]
    rows = []
    with np.load(folder / "clips.npz") as arrays:
        start_s = time.perf_counter()
        for clip, (text, tokens, ended, _) in zip(job["clips"], run(job, arrays), strict=True):
            now_s = time.perf_counter()
            rows.append({"id": clip["id"], "text": text, "tokens": tokens, "ended": ended, "took_s": now_s - start_s})
            start_s = time.perf_counter()
        timed = {**job, "clips": job["timed"], "timestamps": True}
        ends = [row[3] for row in run(timed, arrays)] if job["timed"] else []
    versions = {name: metadata.version(name) for name in packages}
    result = {"rows": rows, "ends": ends, "versions": versions, "python": sys.version.split()[0]}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
