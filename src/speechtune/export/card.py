"""The README.md of an artefact: what it was made of, how it was measured, and where it fails.

Every number comes from the run's own files or the gate; what is not known is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechtune.core.files import read_json
from speechtune.export.source import Source
from speechtune.models.checking import MARK

_SLICE_WORDS = 100
"""Slices of fewer reference words are left out: their rates say nothing."""


def model_card(source: Source, manifest: dict[str, Any], data_licence: str | None = None) -> str:
    """The card in Markdown with the hub's metadata at its top."""
    scores = _json(source.run, "scores.json") if source.run else {}
    after = [one for one in scores.get("measurements", []) if one.get("system") == "after"]
    facts = _json(source.run, "provenance.json") if source.run else {}
    licence = _licence(source, facts)
    language = source.family.language
    lines = [
        "---",
        *([f"language: {language}"] if language else []),
        *([f"license: {licence.split()[0].lower()}"] if licence else []),
        "pipeline_tag: automatic-speech-recognition",
        f"library_name: {_LIBRARIES[manifest['format']]}",
        "tags: [speech, whisper, speechtune]",
        "---",
        "",
        f"# {(source.run or source.path).resolve().name} ({manifest['format']}, {manifest['dtype']})",
        "",
        *_origin(source, facts, licence, data_licence),
        "",
        "## How it recognises",
        "",
        *(_measured(after) or ["No measurement is recorded with this model: its error rate is unknown."]),
        *_forgetting(scores.get("comparisons", [])),
        *_slices(after),
        "",
        "## Audio context",
        "",
        _contexts(manifest["audio_contexts"]),
        "",
        "## Checked against its source",
        "",
        *_gate(manifest["gate"]),
        "",
        "## Known failures",
        "",
        *_failures(source, after, manifest),
        "",
        _USE[manifest["format"]],
    ]
    return "\n".join(lines) + "\n"


_LIBRARIES = {
    "transformers": "transformers",
    "adapter": "peft",
    "ctranslate2": "ctranslate2",
    "ggml": "whisper.cpp",
    "onnx": "onnx",
    "openai": "whisper",
}
_USE = {
    "transformers": "Load it with `WhisperForConditionalGeneration.from_pretrained(DIR)`.",
    "adapter": "Load its base, then `peft.PeftModel.from_pretrained(BASE_MODEL, DIR)`.",
    "ctranslate2": "Load it with `faster_whisper.WhisperModel(DIR)` or `ctranslate2.models.Whisper(DIR)`.",
    "ggml": "Load it with whisper.cpp (`whisper-cli -m FILE`), pywhispercpp, or in the FUTO keyboard (custom model).",
    "onnx": "Load it with onnxruntime, transformers.js, or `onnx_asr.load_model('whisper', DIR)` (multilingual).",
    "openai": "Load it with `whisper.load_model('DIR/model.pt')`.",
}


def _json(run: Path | None, name: str) -> dict[str, Any]:
    return read_json(run / name) if run is not None and (run / name).is_file() else {}


def _licence(source: Source, facts: dict[str, Any]) -> str | None:
    for folder in (source.path, Path(str(facts.get("base", {}).get("path", "")))):
        if (folder / MARK).is_file():
            return read_json(folder / MARK).get("licence")
    return None


def _origin(source: Source, facts: dict[str, Any], licence: str | None, data_licence: str | None) -> list[str]:
    lines = []
    if "base" in facts:
        data = facts.get("data", {})
        hours = data.get("seconds_of_audio", 0) / 3600
        corpus = Path(str(data.get("corpus"))).name
        lines.append(
            f"Fine-tuned from **{facts['base'].get('name')}** with speechtune on `{corpus}`: "
            f"{data.get('kept')} utterances, {hours:.2f} h (fingerprint `{str(data.get('fingerprint'))[:12]}`)."
        )
        dropped = data.get("dropped_by_reason") or {}
        if dropped:
            lines.append("Left out: " + ", ".join(f"{count} ({reason})" for reason, count in dropped.items()) + ".")
    else:
        lines.append(f"Made from `{source.name}`; no training run is recorded with it.")
    lines.append(f"Licence of the base model: {licence or 'unknown; look it up'}.")
    if data_licence:
        lines.append(f"Licence of the training data: {data_licence}.")
    else:
        lines.append("The licence of the training data is not recorded here and may restrict use.")
    return lines


def _measured(after: list[dict[str, Any]]) -> list[str]:
    if not after:
        return []
    head = "| set | role | audio context | WER (95 % interval) | CER | words | normaliser |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for one in after:
        score = one["score"]
        lines.append(
            f"| {one['set']} | {one.get('role')} | {one['context']} | {_rate(score['wer'], score.get('interval'))} "
            f"| {_percent(score.get('cer'))} | {score['words']['reference_length']} | {score['normaliser']} |"
        )
    return [*lines, "", "WER is corpus-level (errors over reference words), measured before conversion."]


def _forgetting(comparisons: Iterable[dict[str, Any]]) -> list[str]:
    lines = []
    for one in comparisons:
        change = one.get("difference") or {}
        if one.get("role") != "guard" or change.get("difference") is None:
            continue
        interval = change.get("interval") or {}
        low, high = interval.get("low"), interval.get("high")
        verdict = "not told apart"
        if low is not None and high is not None and not low <= 0 <= high:
            verdict = "worse" if low > 0 else "better"
        lines.append(
            f"- {one['set']} at {one['context_after']} context: WER {_percent(one['wer_before'])} before, "
            f"{_percent(one['wer_after'])} after ({verdict})"
        )
    return ["", "Forgetting (sets that the training was not for):", "", *lines] if lines else []


def _slices(after: list[dict[str, Any]]) -> list[str]:
    lines = []
    for one in after:
        if one.get("role") != "target" or one["context"] != after[0]["context"]:
            continue
        for column, parts in (one["score"].get("slices") or {}).items():
            for value, part in parts.items():
                words = (part.get("words") or {}).get("reference_length", part.get("reference_words", 0)) or 0
                if words >= _SLICE_WORDS:
                    rate = _rate(part["wer"], part.get("interval"))
                    lines.append(f"| {one['set']} | {column} | {value} | {rate} | {words} |")
    head = ["", "| set | column | value | WER (95 % interval) | words |", "|---|---|---|---|---|"]
    return [*head, *lines] if lines else []


def _contexts(contexts: list[str]) -> str:
    if "fit" in contexts:
        also = "and for the full 30 s window" if "full" in contexts else "and not for the full 30 s window"
        return (
            f"Trained for fitted audio context (as many frames as a clip needs) {also}. In whisper.cpp that is "
            "`audio_ctx`, in CTranslate2 shorter features."
        )
    return (
        "Trained for the full padded window only. Do not cut it (`audio_ctx` in whisper.cpp, dynamic context in the "
        "FUTO keyboard): such a model fails there."
    )


def _gate(gate: dict[str, Any]) -> list[str]:
    judged = gate["judged_on"]
    proven = " (proven within its limits)" if gate.get("proven") else ""
    verdict = f"passed{proven}" if gate["passed"] else "refused"
    lines = [f"Verdict: **{verdict}**, on {judged['kind']}. Details: `manifest.json`."]
    lines += [f"- refused because {reason}" for reason in gate["reasons"]]
    for leg in gate["legs"]:
        if "distance" in leg:
            wer = ""
            if leg["wer_target"] is not None:
                wer = f"; WER {_percent(leg['wer_source'])} source, {_percent(leg['wer_target'])} here"
            versions = ", ".join(f"{name} {version}" for name, version in leg["versions"].items())
            equal = f"{leg['equal']} of {leg['clips']} texts equal"
            lines.append(f"- {versions}, {leg['context']} context{_habit(leg)}: {equal}{wer}")
    return lines


def _habit(leg: dict[str, Any]) -> str:
    return " (with that runtime's defaults)" if leg.get("habit") else ""


def _failures(source: Source, after: list[dict[str, Any]], manifest: dict[str, Any]) -> list[str]:
    lines = []
    for one in after:
        score = one["score"]
        if score["words"]["insertions"] > score["words"]["reference_length"] / 10:
            invented = score["words"]["insertions"]
            lines.append(f"- It invents words on {one['set']} at {one['context']} context ({invented} inserted).")
        if score.get("insertions_on_empty"):
            lines.append(f"- It wrote {score['insertions_on_empty']} words where nothing is said ({one['set']}).")
    own = {one["clip"] for leg in manifest["gate"]["legs"] for one in leg.get("silence", []) if one["source"]}
    if own:
        lines.append(f"- It writes words where nothing is said ({', '.join(sorted(own))} of the gate).")
    flash = [leg for leg in manifest["gate"]["legs"] if leg["runtime"] == "whisper.cpp" and leg.get("habit")]
    if flash and "fit" in manifest["audio_contexts"]:
        lines.append(
            "- whisper.cpp's flash attention (on by default) attends to padding, which costs accuracy at a cut "
            "`audio_ctx`: switch it off (`-nfa`, or `flash_attn = false`)."
        )
    silent = {name for leg in manifest["gate"]["legs"] for name in leg.get("talks_in_silence", [])}
    if silent:
        lines.append(f"- In its runtime it writes words for {', '.join(sorted(silent))}.")
    if not source.multilingual:
        lines.append("- It knows English only.")
    lines.append("- Clips longer than 30 s must be cut first, as with every Whisper.")
    return lines


def _rate(rate: float | None, interval: dict[str, Any] | None) -> str:
    if rate is None:
        return "-"
    if not interval:
        return _percent(rate)
    return f"{_percent(rate)} ({_percent(interval['low'])} to {_percent(interval['high'])})"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"
