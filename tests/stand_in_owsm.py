"""Stands for `speechtune.models.owsm_worker` where ESPnet is not installed: same protocol, a toy for a model.

It "learns" by counting steps: after ``GOOD`` of them it hears ``ab`` everywhere, else ``x``. What it was asked is
appended to ``asked.jsonl`` beside the weights it loaded. Its model is CTC where the weights lie below ``ctc``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOL, WRONG = 2, 0
GOOD = (0, 4)
"""Numbers of steps after which it hears what is said: none (so that a model that was not trained does), and four."""

state: dict[str, Any] = {"steps": 0, "seen": 0.0}
log = Path("/dev/null")


def answer(op: str, asked: dict[str, Any]) -> Any:
    """The result of an operation."""
    global log
    clips = [np.load(path) for path in asked.get("audio", [])]
    about = {key: value for key, value in asked.items() if key not in ("id", "audio")}
    if op == "load":
        weights = Path(asked["weights"])
        log = weights.with_name("asked.jsonl")
        if weights.read_text().startswith("{"):
            state.update(json.loads(weights.read_text()))
    with log.open("a") as file:
        file.write(
            json.dumps({**about, "lengths": [len(one) for one in clips], "dtypes": [str(one.dtype) for one in clips]})
        )
        file.write("\n")
    if op == "hello":
        return {"protocol": PROTOCOL, "espnet": "none"}
    if op == "load":
        facts = {"languages": ["eng", "deu"], "tasks": ["asr", "st_deu"], "parameters": 1000, "longest_s": 2.0}
        return {**facts, "ctc": "ctc" in asked["weights"], "ctc_frames": 25 if "ctc" in asked["weights"] else None}
    if op == "recognise":
        text = "ab" if state["steps"] in GOOD else "x"
        return [{"text": text, "tokens": 2, "score": -0.5 * asked["beam"]} for _ in clips]
    if op == "loss":
        if "die" in asked["texts"]:
            sys.exit(3)
        return [3.0] if asked["together"] else [3.0 for _ in clips]
    if op == "tokens":
        return [[ord(one) for one in text] for text in asked["texts"]]
    if op == "text":
        return "".join(map(chr, asked["tokens"])).replace("%", "")
    if op == "adapt":
        if asked["roles"] == ["x"]:
            raise ValueError("there is no role 'x': use mlp")
        return {"trained": 10, "layers": 2}
    if op == "step":
        state["steps"] += 1
        state["seen"] += asked["learning_rate"] * sum(float(one.sum()) for one in clips) + asked["seed"] * 1e-12
        return {"loss": "nan" if "nan" in asked["texts"] else repr(3.0 / state["steps"]), "grad_norm": "0.5"}
    if op in ("keep", "go_back"):
        path = Path(asked["path"])
        if op == "keep":
            path.write_text(json.dumps(state))
        else:
            state.update(json.loads(path.read_text()))
        return {}
    if op == "save":
        Path(asked["weights"]).write_text(json.dumps(state))
        return {}
    raise ValueError(f"there is no operation {op!r}")


def write_script(file: Path, protocol: int = PROTOCOL, wrong: int = WRONG) -> Path:
    """This file with another protocol, or with answers to other questions when it saves."""
    own = Path(__file__).read_text(encoding="utf-8")
    file.write_text(own.replace("PROTOCOL, WRONG = 2, 0", f"PROTOCOL, WRONG = {protocol}, {wrong}"), encoding="utf-8")
    return file


def write_python(file: Path) -> Path:
    """An interpreter that runs this file whatever script it is given."""
    file.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()}\n")
    file.chmod(0o755)
    return file


def write_checkpoint(directory: Path) -> Path:
    """The files of a checkpoint, in folders as ESPnet's repositories have them."""
    for name in ("exp/s2t/config.yaml", "exp/s2t/valid.pth", "data/token_list/bpe.model"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return directory


def asked(checkpoint: Path) -> list[dict[str, Any]]:
    """What the process that loaded a checkpoint was asked, in order."""
    file = next(checkpoint.rglob("asked.jsonl"))
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    print("noise of a library", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        said: dict[str, Any] = {"id": request["id"] + (WRONG if request["op"] == "save" else 0)}
        try:
            said["result"] = answer(request["op"], request)
        except ValueError as error:
            said |= {"error": str(error), "kind": "input"}
        print(json.dumps(said), flush=True)
