"""The other side of `speechtune.models.owsm`: runs where ESPnet is installed and imports nothing of speechtune.

It reads one JSON object a line from standard input and answers each with one on standard output: ``{"id", "op", …}`` is
answered by ``{"id", "result"}`` or ``{"id", "error", "kind"}``. Arrays travel as ``.npy`` files whose paths are named.
Whatever libraries print goes to standard error. ``op`` is a method of `Worker` below without ``do_``.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import json
import math
import os
import sys
import types
from pathlib import Path
from typing import Any

PROTOCOL = 1
NOT_NEEDED = ("torchaudio", "g2p_en", "tacotron_cleaner", "pyworld", "pypinyin", "jaconv")
"""Packages that ESPnet imports and OWSM never calls (g2p_en even downloads): each is replaced, installed or not, by a
stand-in that refuses if it is called."""

ROLES = {
    "attention": (".self_attn.linear_", ".attn.linear_", ".src_attn.linear_"),
    "self_attention": (".self_attn.linear_", ".attn.linear_"),
    "cross_attention": (".src_attn.linear_",),
    "mlp": (".feed_forward.w_", ".feed_forward_macaron.w_"),
}


class _Refusing(types.ModuleType):
    """Stands for a package: importing names of it works, calling them does not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"{self.__name__}.{name} is called, which OWSM does not need: this model is another one")

        return type(name, (), {"__init__": refuse})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `NOT_NEEDED` packages before anything else does."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        known = name.split(".")[0] in NOT_NEEDED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Refusing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class Worker:
    """The loaded model and what is done with it."""

    def __init__(self) -> None:
        self.speech2text: Any = None
        self.is_ctc = False
        self.adapted: list[Any] = []

    def do_hello(self) -> dict[str, Any]:
        """Versions, so that the caller can refuse another protocol."""
        import espnet  # type: ignore[import-not-found]
        import torch

        return {"protocol": PROTOCOL, "espnet": espnet.__version__, "torch": torch.__version__}

    def do_load(self, config: str, weights: str, bpe: str | None, device: str = "cpu", beam: int = 5) -> dict[str, Any]:
        """Load a checkpoint; says its parameters and the languages and tasks among its tokens."""
        import yaml

        with open(config, encoding="utf-8") as file:
            self.is_ctc = "ctc" in str(yaml.safe_load(file).get("model", ""))
        common = {"s2t_train_config": config, "s2t_model_file": weights, "bpemodel": bpe, "device": device}
        if self.is_ctc:
            from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch

            self.speech2text = Speech2TextGreedySearch(**common)
        else:
            from espnet2.bin.s2t_inference import Speech2Text

            self.speech2text = Speech2Text(**common, beam_size=beam, ctc_weight=0.0)
        special = [one for one in self._tokens() if one.startswith("<") and one.endswith(">")]
        tasks = [one[1:-1] for one in special if one == "<asr>" or one.startswith("<st_")]
        others = {"<asr>", "<unk>", "<sos>", "<eos>", "<sop>"}
        languages = [one[1:-1] for one in special if len(one) == 5 and one[1:-1].isalpha() and one not in others]
        count = sum(one.numel() for one in self._model().parameters())
        about = {"parameters": count, "tasks": tasks, "languages": languages, "ctc": self.is_ctc}
        return {**about, "longest_s": self._longest_samples() / 16_000}

    def do_transcribe(self, audio: list[str], language: str, task: str = "asr") -> list[str]:
        """The text of each ``.npy`` file (float32, mono, 16 kHz, at most 30 s)."""
        import numpy as np

        self._model().eval()
        texts = []
        for path in audio:
            found = self.speech2text(np.load(path), lang_sym=f"<{language}>", task_sym=f"<{task}>")
            if isinstance(found, tuple):
                found = found[0]
            texts.append(str(found[0][3] if len(found[0]) > 3 else found[0][0]).strip())
        return texts

    def do_recognise(self, audio: list[str], language: str, task: str = "asr", beam: int = 5) -> list[dict[str, Any]]:
        """As `do_transcribe`, with so many beams; ``score``: log-probability of the text, ``tokens``: its length."""
        import numpy as np

        self._model().eval()
        search = getattr(self.speech2text, "beam_search", None)
        if search is not None:
            search.beam_size, search.pre_beam_size = beam, int(beam * getattr(search, "pre_beam_ratio", 1.5))
        rows = []
        for path in audio:
            found = self.speech2text(np.load(path), lang_sym=f"<{language}>", task_sym=f"<{task}>")
            first = (found[0] if isinstance(found, tuple) else found)[0]
            text = first[3] if len(first) > 3 else first[0]
            score = getattr(first[-1], "score", None)
            rows.append(
                {"text": str(text).strip(), "tokens": len(first[2]), "score": None if score is None else float(score)}
            )
        return rows

    def do_loss(self, audio: list[str], texts: list[str], language: str, task: str = "asr") -> list[float]:
        """The model's loss of each clip with its text, in evaluation mode."""
        import torch

        self._model().eval()
        with torch.no_grad():
            return [float(self._loss(*one, language, task)) for one in zip(audio, texts, strict=True)]

    def do_train_lora(
        self,
        audio: list[str],
        texts: list[str],
        language: str,
        task: str = "asr",
        roles: list[str] | None = None,
        rank: int = 16,
        alpha: float = 32.0,
        learning_rate: float = 1e-4,
        steps: int = 100,
        batch: int = 4,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Train low-rank updates of the layers that play the roles, everything else frozen; the loss of each step."""
        import random

        import torch

        torch.manual_seed(seed)
        model = self._model()
        if not self.adapted:
            self._adapt(roles or ["attention", "mlp"], rank, alpha)
        trained = [one for one in model.parameters() if one.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
        order = random.Random(seed)
        drawn: list[int] = []
        losses: list[float] = []
        model.eval()  # batch normalisation and dropout stay as in the checkpoint
        for _ in range(steps):
            total = 0.0
            for _ in range(batch):
                drawn = drawn or order.sample(range(len(audio)), len(audio))
                place = drawn.pop()
                loss = self._loss(audio[place], texts[place], language, task) / batch
                loss.backward()
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(total)
        return {"losses": losses, "trained": sum(one.numel() for one in trained), "layers": len(self.adapted)}

    def do_save(self, weights: str) -> dict[str, Any]:
        """Merge the updates into the weights and write an ESPnet ``.pth`` that its own programs load."""
        import torch

        for parent, name, layer in self.adapted:
            setattr(parent, name, layer.merged())
        self.adapted = []
        torch.save(self._model().state_dict(), weights)
        return {"bytes": os.path.getsize(weights)}

    def _model(self) -> Any:
        if self.speech2text is None:
            raise ValueError("no model is loaded")
        return self.speech2text.s2t_model

    def _tokens(self) -> list[str]:
        return list(self.speech2text.converter.token_list)

    def _ids(self, tokens: list[str]) -> list[int]:
        known = {one: place for place, one in enumerate(self._tokens())}
        missing = [one for one in tokens if one not in known]
        if missing:
            raise ValueError(f"the model has no token {missing[0]}")
        return [known[one] for one in tokens]

    def _longest_samples(self) -> int:
        """What the model takes at once, at 16 kHz."""
        conf = dict(getattr(self.speech2text.s2t_train_args, "preprocessor_conf", None) or {})
        return int(float(conf.get("speech_length", 30)) * int(conf.get("fs", 16_000)))

    def _loss(self, path: str, text: str, language: str, task: str) -> Any:
        import numpy as np
        import torch

        device = next(self._model().parameters()).device
        samples = self._longest_samples()
        wave = np.zeros(samples, np.float32)
        clip = np.load(path)
        if len(clip) > samples:
            longer = f"{len(clip) / 16_000:.1f} s is longer than the model's {samples / 16_000:.0f} s"
            raise ValueError(f"a clip of {longer}: cut it")
        wave[: len(clip)] = clip
        spoken = list(self.speech2text.converter.tokens2ids(self.speech2text.tokenizer.text2tokens(text)))
        prompt = self._ids([f"<{language}>", f"<{task}>"])
        wanted = {
            "speech": torch.from_numpy(wave)[None],
            "text": torch.tensor([[*prompt, *self._ids(["<notimestamps>"]), *spoken]]),
            "text_prev": torch.tensor([self._ids(["<na>"])]),
            "text_ctc": torch.tensor([spoken or self._ids(["<na>"])]),
        }
        if self.is_ctc:
            wanted["text"], wanted["prefix"] = torch.tensor([[*prompt, *spoken]]), torch.tensor([prompt])
        full = {**wanted, **{f"{name}_lengths": torch.tensor([one.shape[1]]) for name, one in wanted.items()}}
        return self._model()(**{name: one.to(device) for name, one in full.items()})[0]

    def _adapt(self, roles: list[str], rank: int, alpha: float) -> None:
        import torch

        unknown = [one for one in roles if one not in ROLES]
        if unknown:
            raise ValueError(f"there is no role {unknown[0]!r}: use {', '.join(ROLES)}")
        ends = tuple(end for role in roles for end in ROLES[role])
        model = self._model()
        model.requires_grad_(False)
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and any(end in f".{name}" for end in ends):
                parent = model.get_submodule(name.rpartition(".")[0])
                layer = _low_rank(module, rank, alpha)
                setattr(parent, name.rpartition(".")[2], layer)
                self.adapted.append((parent, name.rpartition(".")[2], layer))
        if not self.adapted:
            raise ValueError("no layer plays the given roles")


def _low_rank(base: Any, rank: int, alpha: float) -> Any:
    """A linear layer with a low-rank update (Hu et al. 2021, arXiv 2106.09685) that begins at zero."""
    import torch

    class LowRank(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.scale = base, alpha / rank
            self.down = torch.nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
            self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
            torch.nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

        def forward(self, inputs: Any) -> Any:
            return self.base(inputs) + self.scale * (inputs @ self.down.T @ self.up.T)

        def merged(self) -> Any:
            with torch.no_grad():
                self.base.weight += self.scale * (self.up @ self.down)
            return self.base

    return LowRank()


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print, also from C, is no answer
    sys.meta_path.insert(0, _Finder())
    sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != Path(__file__).resolve().parent]
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        number, op = request.pop("id"), request.pop("op")
        answer: dict[str, Any]
        try:
            work = getattr(worker, f"do_{op}", None)
            if work is None:
                raise ValueError(f"there is no operation {op!r}")
            with contextlib.redirect_stdout(sys.stderr):
                answer = {"id": number, "result": work(**request)}
        except Exception as error:  # every failure is an answer; the worker lives on
            kind = "input" if isinstance(error, ValueError) else type(error).__name__
            answer = {"id": number, "error": " ".join(str(error).split())[:500], "kind": kind}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
