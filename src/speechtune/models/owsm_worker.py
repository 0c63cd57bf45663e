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

PROTOCOL = 2
NOT_NEEDED = ("torchaudio", "g2p_en", "tacotron_cleaner", "pyworld", "pypinyin", "jaconv")
"""Packages that ESPnet imports and OWSM never calls (g2p_en even downloads): each is replaced, installed or not, by a
stand-in that refuses if it is called."""

ROLES = {
    "attention": (".self_attn.linear_", ".attn.linear_", ".src_attn.linear_", ".cross_attn.linear_"),
    "self_attention": (".self_attn.linear_", ".attn.linear_"),
    "cross_attention": (".src_attn.linear_", ".cross_attn.linear_"),
    "mlp": (".feed_forward.w_", ".feed_forward_macaron.w_"),
    "encoder": (".encoder.encoders.",),
    "decoder": (".decoder.decoders.",),
}
"""Parts of the names of the linear layers that play a role; of OWSM-CTC, ``cross_attn`` listens to the prompt."""


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
        self.optimiser: Any = None
        self.max_grad_norm = 1.0
        self.bf16 = False

    def do_hello(self) -> dict[str, Any]:
        """Versions, so that the caller can refuse another protocol."""
        import espnet  # type: ignore[import-not-found]
        import torch

        return {"protocol": PROTOCOL, "espnet": espnet.__version__, "torch": torch.__version__}

    def do_load(self, config: str, weights: str, bpe: str | None, device: str = "cpu", beam: int = 5) -> dict[str, Any]:
        """Load a checkpoint; says its parameters, the languages and tasks among its tokens, and its window."""
        import yaml

        with open(config, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
        self.is_ctc = "ctc" in str(settings.get("model", ""))
        beside = _enter_root(config, settings)
        common = {"s2t_train_config": config, "s2t_model_file": weights, "bpemodel": bpe, "device": device}
        if self.is_ctc:
            from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch

            self.speech2text = Speech2TextGreedySearch(**common)
        else:
            from espnet2.bin.s2t_inference import Speech2Text

            self.speech2text = Speech2Text(**common, beam_size=beam, ctc_weight=0.0)
        if self._model().ctc is not None:
            self._model().ctc.dropout_rate = 0.0  # ESPnet's CTC layer drops in evaluation mode too
        special = [one for one in self._tokens() if one.startswith("<") and one.endswith(">")]
        tasks = [one[1:-1] for one in special if one == "<asr>" or one.startswith("<st_")]
        others = {"<asr>", "<unk>", "<sos>", "<eos>", "<sop>"}
        languages = [one[1:-1] for one in special if len(one) == 5 and one[1:-1].isalpha() and one not in others]
        count = sum(one.numel() for one in self._model().parameters())
        about = {"parameters": count, "tasks": tasks, "languages": languages, "ctc": self.is_ctc, "beside": beside}
        longest_s = self._longest_samples() / 16_000
        frames = int(longest_s * self.speech2text.frames_per_sec) if self.is_ctc else None
        return {**about, "longest_s": longest_s, "ctc_frames": frames}

    def do_recognise(self, audio: list[str], language: str, task: str = "asr", beam: int = 5) -> list[dict[str, Any]]:
        """What is said in each ``.npy`` file (float32, mono, 16 kHz, no longer than the window).

        ``text``; ``tokens``: its length; ``score``: the log-probability of its tokens. OWSM-CTC is decoded greedily
        whatever ``beam`` says, and its ``score`` is the log-probability of the best path.
        """
        self._model().eval()
        search = getattr(self.speech2text, "beam_search", None)
        if search is not None:
            search.beam_size, search.pre_beam_size = beam, int(beam * getattr(search, "pre_beam_ratio", 1.5))
        return [self._recognised(self._wave(path), f"<{language}>", f"<{task}>") for path in audio]

    def do_loss(
        self, audio: list[str], texts: list[str], language: str, task: str = "asr", together: bool = False
    ) -> list[float]:
        """The loss of each clip with its text, in evaluation mode; ``together``: the one loss of all as a batch."""
        import torch

        self._model().eval()
        with torch.no_grad():
            if together:
                return [float(self._loss(audio, texts, language, task))]
            return [float(self._loss([one], [text], language, task)) for one, text in zip(audio, texts, strict=True)]

    def do_tokens(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, without language and task."""
        return [self._spoken(text) for text in texts]

    def do_text(self, tokens: list[int]) -> str:
        """The text of tokens."""
        return str(self.speech2text.tokenizer.tokens2text(self.speech2text.converter.ids2tokens(tokens))).strip()

    def do_adapt(
        self,
        roles: list[str],
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        seed: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        bf16: bool = False,
    ) -> dict[str, Any]:
        """Put new low-rank updates on the layers that play the roles and freeze all else; how much is trained."""
        import torch

        if self.adapted:
            raise ValueError("the model has low-rank updates already: save them first")
        torch.manual_seed(seed)
        self._adapt(roles, rank, alpha, dropout)
        trained = self._trained()
        self.optimiser = torch.optim.AdamW(trained, 0.0, (betas[0], betas[1]), eps, weight_decay)
        self.max_grad_norm, self.bf16 = max_grad_norm, bf16
        return {"trained": sum(one.numel() for one in trained), "layers": len(self.adapted)}

    def do_step(
        self,
        audio: list[str],
        texts: list[str],
        sizes: list[int],
        language: str,
        learning_rate: float,
        task: str = "asr",
        seed: int = 0,
    ) -> dict[str, Any]:
        """One optimiser step on all clips, in micro-batches of the given sizes.

        ``loss`` is the mean over the clips, each counting the same however they are cut into micro-batches;
        ``grad_norm`` is the norm before clipping. Nothing is changed where one of them is not finite. The seed decides
        the dropout of the update: nothing else is drawn, since batch normalisation and ESPnet's own dropout stay as in
        evaluation.
        """
        import torch

        if self.optimiser is None:
            raise ValueError("there is no update to train: adapt the model first")
        torch.manual_seed(seed)
        self._model().eval()
        total, done = 0.0, 0
        for size in sizes:
            part = slice(done, done + size)
            done += size
            loss = self._loss(audio[part], texts[part], language, task, training=True) * (size / len(audio))
            loss.backward()
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained(), self.max_grad_norm))
        if math.isfinite(total) and math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate
            self.optimiser.step()
        self.optimiser.zero_grad()
        return {"loss": repr(total), "grad_norm": repr(norm)}  # as text: JSON has no infinities

    def do_keep(self, path: str) -> dict[str, Any]:
        """Write the updates and the optimiser's state, for `do_go_back`."""
        import torch

        update = [(layer.down.detach().cpu(), layer.up.detach().cpu()) for _, _, layer in self.adapted]
        torch.save({"update": update, "optimiser": self.optimiser.state_dict()}, path)
        return {"bytes": os.path.getsize(path)}

    def do_go_back(self, path: str) -> dict[str, Any]:
        """Take the updates and the optimiser's state of a file of `do_keep`, on a model adapted in the same way."""
        import torch

        kept = torch.load(path, map_location="cpu", weights_only=True)
        if len(kept["update"]) != len(self.adapted):
            raise ValueError(f"{path} has updates of {len(kept['update'])} layers, not of {len(self.adapted)}")
        with torch.no_grad():
            for (_, _, layer), (down, up) in zip(self.adapted, kept["update"], strict=True):
                layer.down.copy_(down)
                layer.up.copy_(up)
        self.optimiser.load_state_dict(kept["optimiser"])
        return {}

    def do_save(self, weights: str) -> dict[str, Any]:
        """Merge the updates into the weights and write an ESPnet ``.pth`` that its own programs load."""
        import torch

        for parent, name, layer in self.adapted:
            setattr(parent, name, layer.merged())
        self.adapted, self.optimiser = [], None
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

    def _wave(self, path: str) -> Any:
        """A clip with silence up to the window, as OWSM was trained; ESPnet would cut or not pad, by model."""
        import numpy as np

        samples, clip = self._longest_samples(), np.load(path)
        if len(clip) > samples:
            longer = f"{len(clip) / 16_000:.1f} s is longer than the model's {samples / 16_000:.0f} s"
            raise ValueError(f"a clip of {longer}: cut it")
        return np.pad(clip, (0, samples - len(clip)))

    def _recognised(self, wave: Any, language: str, task: str) -> dict[str, Any]:
        logits: list[Any] = []
        head = self._model().ctc.ctc_lo if self.is_ctc else None
        hook = head and head.register_forward_hook(lambda layer, given, made: logits.append(made))
        try:
            found = self.speech2text(wave, lang_sym=language, task_sym=task)
        finally:
            if hook:
                hook.remove()
        first = (found[0] if isinstance(found, tuple) else found)[0]
        score = getattr(first[-1], "score", None)
        if logits:  # the last call is the one whose best path becomes the text
            score = logits[-1].float().log_softmax(-1).amax(-1).sum()
        score = None if score is None else float(score)
        return {"text": str(first[3]).strip(), "tokens": len(first[2]), "score": score}

    def _spoken(self, text: str) -> list[int]:
        return list(self.speech2text.converter.tokens2ids(self.speech2text.tokenizer.text2tokens(text)))

    def _trained(self) -> list[Any]:
        return [one for one in self._model().parameters() if one.requires_grad]

    def _loss(self, paths: list[str], texts: list[str], language: str, task: str, training: bool = False) -> Any:
        """ESPnet's loss of a batch.

        Of one clip: the sum over its tokens of the cross-entropy (smoothed, where the checkpoint says so) and the CTC
        loss of its text, weighted by the checkpoint's ``ctc_weight``; of OWSM-CTC, the CTC losses of its layers. Of a
        batch: the mean of its clips' losses, so that a clip counts by the number of its tokens. A checkpoint with
        ``length_normalized_loss`` divides by the tokens of the whole batch instead: its clips go one by one here, so
        that a batch's loss is the mean there too.
        """
        import torch

        criterion = getattr(self._model(), "criterion_att", None)
        if len(paths) > 1 and getattr(criterion, "normalize_length", False):
            pairs = zip(paths, texts, strict=True)
            return torch.stack([self._loss([path], [text], language, task, training) for path, text in pairs]).mean()
        device = next(self._model().parameters()).device
        rows = self._rows(texts, language, task)
        full = {"speech": torch.stack([torch.from_numpy(self._wave(path)) for path in paths])}
        for name in rows[0]:
            own = [torch.tensor(row[name]) for row in rows]
            full[name] = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=-1)
            full[f"{name}_lengths"] = torch.tensor([len(one) for one in own])
        full["speech_lengths"] = torch.full((len(paths),), full["speech"].shape[1])
        try:
            self._drop(training)
            with torch.autocast(device.type, torch.bfloat16, enabled=training and self.bf16):
                return self._model()(**{name: one.to(device) for name, one in full.items()})[0]
        finally:
            self._drop(False)

    def _drop(self, wanted: bool) -> None:
        for _, _, layer in self.adapted:
            layer.training_update = wanted

    def _rows(self, texts: list[str], language: str, task: str) -> list[dict[str, list[int]]]:
        """What ESPnet's preprocessors make of the texts, without their draws (times, previous text, no language)."""
        prompt, nothing = self._ids([f"<{language}>", f"<{task}>"]), self._ids(["<na>"])
        rows = []
        for spoken in map(self._spoken, texts):
            if self.is_ctc:  # S2TCTCPreprocessor: language and task stand before the text of both CTC targets
                own = {"text": [*prompt, *spoken], "text_ctc": [*prompt, *spoken], "prefix": prompt}
            else:
                own = {"text": [*prompt, *self._ids(["<notimestamps>"]), *spoken], "text_ctc": spoken or nothing}
            rows.append({**own, "text_prev": nothing})
        return rows

    def _adapt(self, roles: list[str], rank: int, alpha: float, dropout: float) -> None:
        import torch

        unknown = [one for one in roles if one not in ROLES]
        if unknown:
            raise ValueError(f"there is no role {unknown[0]!r}: use {', '.join(ROLES)}")
        parts = tuple(part for role in roles for part in ROLES[role])
        model = self._model()
        model.requires_grad_(False)
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and any(part in f".{name}" for part in parts):
                parent = model.get_submodule(name.rpartition(".")[0])
                layer = _low_rank(module, rank, alpha, dropout)
                setattr(parent, name.rpartition(".")[2], layer)
                self.adapted.append((parent, name.rpartition(".")[2], layer))
        if not self.adapted:
            raise ValueError(f"no layer plays the role {' or '.join(roles)} in this model")


def _enter_root(config: str, settings: dict[str, Any]) -> list[str]:
    """Go to the directory that relative paths of a configuration start from; the files found there by such a path.

    ESPnet's configurations name the feature statistics relative to the recipe's directory, some levels above the file.

    Raises:
        ValueError: a named file is in none of them.
    """
    name = (settings.get("normalize_conf") or {}).get("stats_file")
    if not name or Path(name).is_absolute():
        return []
    root = next((one for one in Path(config).parents if (one / name).is_file()), None)
    if root is None:
        raise ValueError(f"the checkpoint has no {name}, which its config.yaml names: fetch it too")
    os.chdir(root)
    return [str(name)]


def _low_rank(base: Any, rank: int, alpha: float, dropout: float) -> Any:
    """A linear layer with a low-rank update (Hu et al. 2021, arXiv 2106.09685) that begins at zero."""
    import torch

    class LowRank(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.scale, self.training_update = base, alpha / rank, False
            self.down = torch.nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
            self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
            torch.nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

        def forward(self, inputs: Any) -> Any:
            seen = torch.nn.functional.dropout(inputs, dropout, self.training_update)
            return self.base(inputs) + self.scale * (seen @ self.down.T @ self.up.T)

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
