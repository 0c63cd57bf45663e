"""What `models get` does for families other than Whisper: they are loaded, and of MMS one adapter is fetched."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_ctc
import tiny_qwen3_asr
import torch
from safetensors.torch import save_file
from test_obtaining import _Hub, _models

from speechtune.core.errors import InputError
from speechtune.models.obtaining import get_model

LANGUAGES = {"eng": tiny_ctc.VOCABULARY, "deu": {"<pad>": 0, "<unk>": 1, "|": 2, "x": 3, "y": 4}, "fra": {"<pad>": 0}}


def make_mms(directory: Path) -> Path:
    """A tiny MMS with three languages, its adapters beside its weights."""
    from transformers import AutoModelForCTC

    from speechtune.models.ctc_vocabulary import character_tokenizer

    config = tiny_ctc.configuration("wav2vec2-layer", 7)
    config.adapter_attn_dim = 4
    torch.manual_seed(0)
    model = AutoModelForCTC.from_config(config)
    model.save_pretrained(directory)
    tiny_ctc.extractor_for("wav2vec2-layer").save_pretrained(directory)
    tokenizer = character_tokenizer(LANGUAGES["eng"], "eng")
    tokenizer.vocab = LANGUAGES
    tokenizer.save_pretrained(directory)
    for code, units in LANGUAGES.items():
        weights = {name: one.detach().clone() for name, one in model._get_adapters().items()}
        weights["lm_head.weight"], weights["lm_head.bias"] = torch.zeros(len(units), 48), torch.zeros(len(units))
        save_file(weights, directory / f"adapter.{code}.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture
def mms_hub(tmp_path: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment in which ``hf:someone/pocket`` is an MMS, and the names of the files that were asked for."""
    pytest.importorskip("huggingface_hub")
    folder, asked = make_mms(tmp_path / "served"), []

    class Listening(_Hub):
        def do_GET(self, body: bool = True) -> None:  # noqa: N802
            if "/resolve/" in self.path:
                asked.append(self.path.split("?")[0].rsplit("/", 1)[1])
            super().do_GET(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Listening,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield (
        {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "SPEECHTUNE_HOME": str(tmp_path / "home"),
        },
        asked,
    )
    server.shutdown()


def test_of_mms_only_the_wanted_adapter_is_fetched(mms_hub: tuple[dict[str, str], list[str]], tmp_path: Path) -> None:
    environment, asked = mms_hub
    code, answer = _models(environment, "get", "hf:someone/pocket")
    assert code == 0, answer
    assert not [name for name in asked if name.startswith("adapter.")] and "model.safetensors" in asked
    code, answer = _models(environment, "get", "hf:someone/pocket", "--language", "de")
    assert (code, answer["already_there"]) == (0, False), answer
    assert {name for name in asked if name.startswith("adapter.")} == {"adapter.deu.safetensors"}
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    code, again = _models(offline, "get", "hf:someone/pocket", "--language", "de")
    assert (code, again["already_there"]) == (0, True), again
    load = (
        "import sys; from pathlib import Path; from speechtune.models.family import load_family; "
        "family = load_family(Path(sys.argv[1]), language='de', device='cpu'); print(family.tokens('xy')[0])"
    )
    done = subprocess.run([sys.executable, "-c", load, str(again["path"])], env=offline, capture_output=True, text=True)
    assert done.stdout.strip() == "[3, 4]", done.stderr
    code, answer = _models(environment, "get", "hf:someone/pocket", "--language", "xx")
    assert code == 2 and "has no adapter for 'xx': it has deu, eng, fra" in str(answer["error"])
    code, answer = _models(environment, "get", "hf:someone/pocket", "--language", "fr", "--out", str(tmp_path / "copy"))
    assert code == 0, answer
    assert [path.name for path in (tmp_path / "copy").glob("adapter.*")] == ["adapter.fra.safetensors"]


def test_a_model_without_adapters_says_so(mms_hub: tuple[dict[str, str], list[str]], tmp_path: Path) -> None:
    for file in (tmp_path / "served").glob("adapter.*"):
        file.unlink()
    code, answer = _models(mms_hub[0], "get", "hf:someone/pocket", "--language", "de")
    assert code == 2 and "has no language adapters: leave out --language" in str(answer["error"])
    with pytest.raises(InputError, match="leave out --language"):
        get_model(str(tmp_path / "served"), language="de")


@pytest.mark.parametrize("fault", ["tensor", "weights", "tokenizer"])
def test_qwen3_asr_is_really_loaded(fault: str, tmp_path: Path) -> None:
    path = tiny_qwen3_asr.make_qwen3_asr(tmp_path / "model")
    found = get_model(str(path))
    assert (found.family, found.verified) == ("qwen3_asr", "loads with Transformers")
    if fault == "weights":
        (path / "model.safetensors").write_bytes(b"")
    elif fault == "tokenizer":
        (path / "tokenizer.json").unlink()
    else:
        from safetensors.torch import load_file

        tensors = load_file(path / "model.safetensors")
        del tensors["model.audio_tower.conv2d2.weight"]
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError) as caught:
        get_model(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert json.loads((path / "config.json").read_text())["model_type"] == "qwen3_asr"
