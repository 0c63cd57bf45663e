"""A tiny random OWSM, made with ESPnet: ``python tiny_owsm.py WORKER DIRECTORY``, by the Python of its environment."""

from __future__ import annotations

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ENCODER = {
    "output_size": 32, "attention_heads": 2, "attention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos",
    "cgmlp_linear_units": 32, "cgmlp_conv_kernel": 5, "use_linear_after_conv": False, "gate_activation": "identity",
    "num_blocks": 2, "dropout_rate": 0.0, "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0,
    "input_layer": "conv2d", "linear_units": 64, "positionwise_layer_type": "linear", "use_ffn": True,
    "macaron_ffn": True, "merge_conv_kernel": 5,
}  # fmt: skip
DECODER = {
    "attention_heads": 2, "linear_units": 64, "num_blocks": 1, "dropout_rate": 0.0, "positional_dropout_rate": 0.0,
    "self_attention_dropout_rate": 0.0, "src_attention_dropout_rate": 0.0,
}  # fmt: skip


def settings() -> dict[str, Any]:
    """The configuration, with letters as tokens and two-second clips."""
    special = ["<blank>", "<unk>", "<na>", "<nospeech>", "<eng>", "<deu>", "<asr>", "<st_deu>", "<notimestamps>"]
    times = [f"<{place * 0.02:.2f}>" for place in range(1501)]
    return {
        "token_list": [*special, *times, *"abcd", "<space>", "<sos>", "<eos>", "<sop>"],
        "token_type": "char",
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80, "fs": "16k"},
        "specaug": None,
        "specaug_conf": {},
        "normalize": "utterance_mvn",
        "normalize_conf": {},
        "encoder": "e_branchformer",
        "encoder_conf": ENCODER,
        "decoder": "transformer",
        "decoder_conf": DECODER,
        "model": "espnet",
        "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.0, "sym_na": "<na>"},
        "preprocessor": "s2t",
        "preprocessor_conf": {
            "speech_length": 2, "fs": 16000, "na_symbol": "<na>", "notime_symbol": "<notimestamps>",
            "first_time_symbol": "<0.00>", "last_time_symbol": "<30.00>", "speech_resolution": 0.02,
        },
    }  # fmt: skip


def main(worker: Path, directory: Path) -> None:
    """Write ``config.yaml`` and ``model.pth``."""
    spec = spec_from_file_location("owsm_worker", worker)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.meta_path.insert(0, module._Finder())
    import torch
    import yaml
    from espnet2.tasks.s2t import S2TTask

    values = argparse.Namespace(**{**S2TTask.get_default_config(), **settings()})
    torch.manual_seed(0)
    model = S2TTask.build_model(values)
    plain = {k: v for k, v in vars(values).items() if isinstance(v, str | int | float | list | dict | None)}
    (directory / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    torch.save(model.state_dict(), directory / "model.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
