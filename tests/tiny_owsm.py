"""A tiny random OWSM, made with ESPnet: ``python tiny_owsm.py WORKER DIRECTORY [ctc]``, by its environment's Python.

``ctc``: an OWSM-CTC as its recipe lays it out, with feature statistics named relative to the recipe's directory.
``says CLIPS [DIRECTORY]`` instead: what ESPnet alone says of the checkpoints there, a line for each.
"""

from __future__ import annotations

import argparse
import json
import os
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


CTC_ENCODER = {
    **ENCODER, "input_layer": "conv2d8", "interctc_layer_idx": [1], "interctc_use_conditioning": True,
    "use_cross_attention": [False, True],
}  # fmt: skip
STATISTICS = "exp/stats/feats_stats.npz"


def ctc_settings() -> dict[str, Any]:
    """The configuration of an OWSM-CTC with letters as tokens and two-second clips."""
    plain = settings()
    window = {key: plain["preprocessor_conf"][key] for key in ("speech_length", "fs", "na_symbol")}
    unused = ("decoder", "decoder_conf")
    return {
        **{key: value for key, value in plain.items() if key not in unused},
        "token_list": ["<blank>", "<unk>", "<nolang>", *(one for one in plain["token_list"][2:] if "." not in one)],
        "encoder": "e_branchformer_ctc",
        "encoder_conf": CTC_ENCODER,
        "promptencoder": "transformer",
        "promptencoder_conf": {"output_size": 16, "attention_heads": 2, "linear_units": 32, "num_blocks": 1},
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": STATISTICS},
        "model": "espnet_ctc",
        "model_conf": {"interctc_weight": 0.5, "ctc_asr_only": [True, False], "sym_na": "<na>"},
        "preprocessor": "s2t_ctc",
        "preprocessor_conf": window,
    }


def stand_ins(worker: Path) -> None:
    """Put the worker's stand-ins for packages that OWSM never calls before the real ones."""
    spec = spec_from_file_location("owsm_worker", worker)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.meta_path.insert(0, module._Finder())


def says(directory: Path, clips: Path) -> None:
    """Print what ESPnet alone says of a checkpoint and English clips: their texts, and the loss of their batch.

    The loss comes from ESPnet's own preprocessor and collate function. OWSM-CTC's clips are padded before recognition
    as its model card does it (``librosa.util.fix_length``). ``clips``: an ``.npz`` with ``wave0``, … and ``texts``.
    """
    import librosa
    import numpy as np
    import torch
    import yaml
    from espnet2.train import preprocessor
    from espnet2.train.collate_fn import CommonCollateFn

    os.chdir(directory)
    config = next(directory.rglob("config.yaml"))
    wanted = yaml.safe_load(config.read_text(encoding="utf-8"))
    common = {"s2t_train_config": str(config), "s2t_model_file": str(next(directory.rglob("*.pth")))}
    special = [one for one in wanted["token_list"] if one.startswith("<") and one != "<space>"]
    settings = {"train": False, "token_type": "char", "token_list": wanted["token_list"], **wanted["preprocessor_conf"]}
    if wanted["model"] == "espnet_ctc":
        from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch

        asked, start = Speech2TextGreedySearch(**common), " <eng><asr>"
        prepare = preprocessor.S2TCTCPreprocessor(non_linguistic_symbols=special, **settings)
    else:
        from espnet2.bin.s2t_inference import Speech2Text

        asked, start = Speech2Text(**common, beam_size=5, ctc_weight=0.0), " <eng><asr><notimestamps>"
        prepare = preprocessor.S2TPreprocessor(non_linguistic_symbols=special, **settings)
    given = np.load(clips)
    texts, rows = [], []
    for place, text in enumerate(map(str, given["texts"])):
        wave = given[f"wave{place}"]
        full = wave
        if wanted["model"] == "espnet_ctc":
            full = librosa.util.fix_length(wave, size=settings["speech_length"] * 16_000)
        found = asked(full, lang_sym="<eng>", task_sym="<asr>")
        texts.append((found[0] if isinstance(found, tuple) else found)[0][3].strip())
        row = prepare(str(place), {"speech": wave, "text": start + text, "text_ctc": text})
        row["speech"] = row["speech"][:, 0]
        rows.append((str(place), {**row, "text_prev": np.array([asked.converter.token2id["<na>"]])}))
    _, batch = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)(rows)
    with torch.no_grad():
        loss = asked.s2t_model(**batch)[0]
    print(json.dumps({"texts": texts, "loss": float(loss)}))


def main(directory: Path, kind: str = "") -> None:
    """Write ``config.yaml`` and ``model.pth``; of an OWSM-CTC below ``exp/s2t``."""
    import numpy as np
    import torch
    import yaml

    wanted, place = settings(), directory
    if kind == "ctc":
        from espnet2.tasks.s2t_ctc import S2TTask

        wanted, place = ctc_settings(), directory / "exp" / "s2t"
        place.mkdir(parents=True)
        (directory / STATISTICS).parent.mkdir()
        frames = 100 * np.ones(80)
        np.savez(directory / STATISTICS, count=100, sum=-8 * frames, sum_square=(64 + 9) * frames)
        os.chdir(directory)
    else:
        from espnet2.tasks.s2t import S2TTask
    values = argparse.Namespace(**{**S2TTask.get_default_config(), **wanted})
    torch.manual_seed(0)
    model = S2TTask.build_model(values)
    if kind == "ctc":  # letters are likelier than special tokens, so that there is a text to compare
        model.ctc.ctc_lo.bias.data[[wanted["token_list"].index(letter) for letter in "abcd"]] += 1.0
    plain = {k: v for k, v in vars(values).items() if isinstance(v, str | int | float | list | dict | None)}
    (place / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    torch.save(model.state_dict(), place / "model.pth")


if __name__ == "__main__":
    stand_ins(Path(sys.argv[1]))
    folder = Path(sys.argv[2]).resolve()
    if sys.argv[3:4] == ["says"]:
        clips, *others = (Path(one).resolve() for one in sys.argv[4:])
        for one in (folder, *others):
            says(one, clips)
    else:
        main(folder, *sys.argv[3:])
