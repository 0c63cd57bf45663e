"""What ``speechtune lm`` does: each function returns a JSON object and the text for a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from speechtune.core.errors import InputError
from speechtune.decoding.lm.arpa import write_arpa, write_npz
from speechtune.decoding.lm.english import get_english
from speechtune.decoding.lm.loading import load_lm, load_ngram
from speechtune.decoding.lm.mixture import merge, perplexity, tune_weights
from speechtune.decoding.lm.model import NgramModel
from speechtune.decoding.lm.text import read_sentences, words_function
from speechtune.decoding.lm.training import Smoothing, train_ngram

Outcome = tuple[dict[str, Any], str]


def get(name: str, overwrite: bool) -> Outcome:
    """Obtain a named language model.

    Raises:
        InputError: there is none of that name, or it cannot be had.
    """
    if name != "english":
        raise InputError(f"there is no language model {name!r} to get: use english, or train one")
    facts = get_english(overwrite)
    return facts, f"english {'is already there' if facts['already_there'] else 'is ready'}: {facts['path']}"


def train(
    sources: Sequence[Path],
    out: Path,
    order: int,
    smoothing: str,
    split: str | None,
    words: str,
    tokens: str | None,
    overwrite: bool,
) -> Outcome:
    """Train on all sources together.

    Raises:
        InputError: a source has no words, an unknown smoothing, or ``out`` exists.
    """
    _writable(out, overwrite)
    if smoothing not in get_args(Smoothing):
        raise InputError(f"--smoothing {smoothing!r} is unknown: use one of {', '.join(get_args(Smoothing))}")
    cut = token_words(tokens) if tokens else words_function(words)
    sentences = [one for source in sources for one in read_sentences(source, cut, split)]
    result = train_ngram(sentences, order, smoothing)  # type: ignore[arg-type]
    _write(result.model, out)
    facts = {**result.to_json(), "out": str(out)}
    sizes = ", ".join(f"{count} {n}-grams" for n, count in enumerate(facts["ngrams"], start=1))
    return facts, f"{out}: {result.smoothing} from {result.words} words in {result.sentences} sentences; {sizes}"


def token_words(name: str) -> Callable[[str], list[str]]:
    """Cuts text into a recogniser's tokens, written as numbers, as decoding will produce them."""
    from transformers import AutoTokenizer

    from speechtune.models.obtaining import resolve_model

    path = Path(name) / "model" if (Path(name) / "recipe.yaml").is_file() else resolve_model(name)
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return lambda text: [str(one) for one in tokenizer.encode(" " + text.strip(), add_special_tokens=False)]


def mix(
    names: Sequence[str],
    out: Path,
    weights: Sequence[float] | None,
    tune: Path | None,
    split: str | None,
    words: str,
    overwrite: bool,
) -> Outcome:
    """Interpolate models, with given weights or those that fit a text best.

    Raises:
        InputError: neither or both of weights and a text, or a model whose n-grams cannot be listed.
    """
    _writable(out, overwrite)
    if bool(weights) == bool(tune):
        raise InputError("mixing needs either --weight once for each model, or --tune with a text: give one of them")
    models = [load_ngram(name) for name in names]
    if tune:
        weights = tune_weights(models, read_sentences(tune, words_function(words), split))
    merged = merge(models, list(weights or []))
    _write(merged, out)
    sizes = [len(table) for table in merged.tables]
    used = [float(one) for one in weights or []]
    text = ", ".join(f"{name} {one / sum(used):.3f}" for name, one in zip(names, used, strict=True))
    return {"out": str(out), "weights": used, "ngrams": sizes}, f"{out}: {text}"


def judge(name: str, source: Path, split: str | None, words: str) -> Outcome:
    """The perplexity of a text.

    Raises:
        InputError: no such model or text.
    """
    facts = perplexity(load_lm(name), read_sentences(source, words_function(words), split))
    return facts, (
        f"perplexity {facts['perplexity']:.1f} ({facts['perplexity_known']:.1f} over known words), "
        f"{facts['unknown_words']} of {facts['words']} words unknown"
    )


def _writable(out: Path, overwrite: bool) -> None:
    if not out.name.endswith((".arpa", ".arpa.gz", ".npz")):
        raise InputError(f"--out {out} must end in .arpa, .arpa.gz or .npz: rename it")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: choose another name, or add --overwrite")


def _write(model: NgramModel, out: Path) -> None:
    (write_npz if out.suffix == ".npz" else write_arpa)(model, out)
