"""Guards against a scripted recogniser: what is planted is found and repaired, what is said stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.audio import vad
from speechtune.decoding import guards
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guard_detectors import Evidence, cut_loops, is_impossible, problems
from speechtune.decoding.guards import Guard, active_guard, for_transcribing
from speechtune.decoding.guards_config import GuardsConfig
from speechtune.decoding.hallucinated_phrases import only_invented
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Hypothesis
from speechtune.models.search_config import SearchConfig

LOOP = "i am sorry " * 20
SAID = "the cat sat on the mat"


class Scripted:
    """A family whose texts depend on how it is asked."""

    name = "scripted"
    language = "en"
    contexts = ("fit", "full")

    def __init__(
        self, plain: str, no_repeat: str = "", sampled: str = "", full: str = "", log_prob: float = -0.3
    ) -> None:
        self.texts = {"plain": plain, "no-repeat": no_repeat, "sample": sampled, "full": full}
        self.log_prob = log_prob
        self.asked: list[str] = []

    def context_frames(self, seconds: float, context: str = "fit") -> int:
        return 3000 if context == "full" else round(100 * seconds)

    def generate(
        self,
        waveforms: Sequence[np.ndarray],
        n_frames: int,
        limit: int,
        beams: int = 1,
        *,
        search: Any = None,
        guides: Any = (),
    ) -> list[Hypothesis]:
        search = search or SearchConfig()
        how = (
            "full"
            if n_frames == 3000
            else "no-repeat"
            if search.no_repeat_ngram
            else "sample"
            if search.sample
            else "plain"
        )
        self.asked.append(how)
        return [
            Hypothesis(text=self.texts[how], tokens=[1], log_prob=self.log_prob, truncated=False, no_speech_prob=0.01)
            for _ in waveforms
        ]


def watch(
    family: Any, text: str, use: str = "on", seconds: float = 20.0, heard: float = 0.9, **facts: Any
) -> Transcript:
    """What a guard makes of one clip in which the detector is ``heard`` sure of speech throughout."""
    config = DecodingConfig(guards=GuardsConfig(use=use, **facts.pop("guards", {})))
    transcript = Transcript(utterance_id="a", text=text, **{"log_prob": -0.3, **facts})
    waveform = np.zeros(round(seconds * 16_000), np.float32)
    guards.speech_probabilities = lambda clips: [np.full(len(clip) // 512, heard, np.float32) for clip in clips]  # type: ignore
    try:
        return Guard(family, config).watch([transcript], [waveform], round(100 * seconds))[0]
    finally:
        guards.speech_probabilities = vad.speech_probabilities


def test_a_loop_is_decoded_anew_and_what_was_before_is_kept() -> None:
    one = watch(Scripted(LOOP, no_repeat=SAID), LOOP)
    assert one.text == SAID
    assert one.flags == ["guard-loop"]
    assert one.interventions == [{"guard": "loop", "action": "decoded anew: no-repeat", "before": LOOP}]


def test_remedies_are_tried_in_turn_until_nothing_is_wrong() -> None:
    family = Scripted(LOOP, no_repeat=LOOP, sampled=LOOP, full=SAID)
    one = watch(family, LOOP)
    assert one.interventions[0]["action"] == "decoded anew: context"
    assert family.asked[0] == "no-repeat"
    assert "sample" in family.asked
    assert family.asked[-1] == "full"


def test_a_loop_that_stays_is_cut_and_an_impossible_text_emptied() -> None:
    stubborn = Scripted(LOOP, no_repeat=LOOP, sampled=LOOP, full=LOOP)
    one = watch(stubborn, "well " + LOOP)
    assert one.text == "well i am sorry"
    assert one.interventions[0]["action"] == "loop cut"
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), (60, 5))
    fast = " ".join("".join(row) for row in letters)
    one = watch(Scripted(fast, no_repeat=fast, sampled=fast, full=fast), fast, seconds=2.0)
    assert one.text == ""
    assert one.interventions == [{"guard": "rate", "action": "emptied", "before": fast}]
    assert one.flags == ["guard-rate"]


@pytest.mark.parametrize(
    ("heard", "facts", "emptied"),
    [
        (0.9, {"log_prob": -2.0, "no_speech_prob": 0.9}, False),  # somebody speaks
        (0.4, {"log_prob": -0.3, "no_speech_prob": 0.1}, False),  # no speech found, but the model is sure
        (0.4, {"log_prob": -1.2, "no_speech_prob": 0.1}, True),
        (0.4, {"log_prob": -0.3, "no_speech_prob": 0.7}, True),
        (0.1, {"log_prob": -0.3, "no_speech_prob": 0.1}, True),  # nothing like speech at all
    ],
)
def test_silence_is_emptied_on_the_word_of_two(heard: float, facts: dict[str, float], emptied: bool) -> None:
    one = watch(Scripted("x"), SAID, heard=heard, **facts)
    assert (one.text == "") == emptied
    assert one.flags == (["guard-silence"] if emptied else [])


def test_a_known_phrase_counts_only_with_little_evidence() -> None:
    text = "Thank you. Thanks for watching!"
    assert watch(Scripted("x"), text).text == text
    doubted = watch(Scripted("x"), text, log_prob=-1.5)
    assert (doubted.text, doubted.flags) == ("", ["guard-phrase"])
    assert watch(Scripted("x"), "Thank you for coming", log_prob=-1.5).text == "Thank you for coming"
    own = watch(Scripted("x"), "Our jingle", log_prob=-1.5, guards={"phrases": ["our jingle"]})
    assert own.text == ""
    assert watch(Scripted("x"), text, log_prob=-1.5, guards={"known_phrases": False}).text == text


def test_safe_repairs_only_what_cannot_have_been_said() -> None:
    assert watch(Scripted("x"), SAID, "safe", heard=0.0, log_prob=-3.0).text == SAID
    assert watch(Scripted("x", no_repeat="y"), LOOP, "safe").text == LOOP
    assert watch(Scripted("x", no_repeat=SAID), LOOP, "safe", flags=["truncated"]).text == SAID
    assert watch(Scripted("x", no_repeat=SAID), LOOP, "safe", seconds=4.0).text == SAID


def test_flag_names_and_changes_nothing() -> None:
    one = watch(Scripted("x"), LOOP, "flag")
    assert (one.text, one.flags, one.interventions) == (LOOP, ["suspect-loop"], [])


def test_only_the_chosen_guards_act() -> None:
    assert watch(Scripted("x"), LOOP, guards={"which": ["rate"]}).text == LOOP


def test_auto_guards_what_a_person_reads_and_nothing_else() -> None:
    config = DecodingConfig()
    assert active_guard(Scripted("x"), config) is None  # type: ignore[arg-type]
    assert for_transcribing(config).guards.use == "safe"
    off = DecodingConfig(guards=GuardsConfig(use="off"))
    assert for_transcribing(off) is off


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("no no no", "no no no"),
        ("no no no no no", "no"),
        ("he said go to the shop go to the shop go to the shop go to", "he said go to the shop"),
        ("Go to bed. Go to bed, go to bed", "Go to bed."),
        ("one two three", "one two three"),
        ("ははははははははは", "は"),
        ("", ""),
    ],
)
def test_cutting_leaves_one_round(text: str, cut: str) -> None:
    assert cut_loops(text) == cut


def test_impossible_is_judged_by_the_script() -> None:
    assert not is_impossible("a" * 49, 2.0)
    assert is_impossible("a" * 51, 2.0)
    assert is_impossible("字" * 21, 2.0)
    assert not is_impossible("字" * 19, 2.0)
    assert not is_impossible("a" * 100, 0.2)  # too short to judge
    assert is_impossible("a" * 21, 2.0, max_chars_per_s=10)


def test_phrases_of_a_language_are_not_looked_for_in_another() -> None:
    assert only_invented("Merci.", "fr")
    assert not only_invented("Merci.", "en")
    assert only_invented("[Music] ご視聴ありがとうございました", "ja")
    assert not only_invented("", "en")


def test_what_children_read_trips_no_guard(shared_speech: Path) -> None:
    """The texts of all children's clips with the evidence of a sure model: no guard has a reason."""
    lines = (shared_speech / "speechocean762" / "children" / "text").read_text().splitlines()
    texts = [line.split(maxsplit=1)[1] for line in lines]
    assert len(texts) > 1000
    config = GuardsConfig(use="on")
    for text in texts:
        letters = sum(char.isalpha() for char in text)
        assert not problems(text, Evidence(letters / 11.3, 1.0, 0.9, -0.8, 0.3), config), text  # their fastest rate


def test_the_verbs_guard_and_say_so(
    speechtune: Callable[..., Any], tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """A random model writes endless nonsense: transcribe repairs it, evaluate measures it as it is."""
    command = ["transcribe", tiny_model, tiny_corpus, "--split", "dev", "--json", "--quiet"]
    bare = json.loads(speechtune(*command, "decoding.guards.use=off").stdout)
    safe = json.loads(speechtune(*command).stdout)
    assert bare["interventions"] == 0
    before = {row["utterance_id"]: row["text"] for row in bare["transcripts"]}
    changed = [row for row in safe["transcripts"] if row["text"] != before[row["utterance_id"]]]
    assert safe["interventions"] == sum("interventions" in row for row in safe["transcripts"]) >= len(changed)
    for row in safe["transcripts"]:
        for one in row.get("interventions", []):
            assert one["before"] == before[row["utterance_id"]]
            assert f"guard-{one['guard']}" in row["flags"]
    wrong = speechtune(*command, "decoding.guards.which=[noise]")
    assert wrong.returncode == 2
    assert "decoding.guards.which" in wrong.stderr


def test_the_defaults_change_nothing(tiny_model: Path, tiny_corpus: Path) -> None:
    from speechtune.corpus.table import Corpus
    from speechtune.models.family import load_family

    family, corpus = load_family(tiny_model), Corpus.load(tiny_corpus).split("dev")
    off = DecodingConfig(max_new_tokens=12, guards=GuardsConfig(use="off"))
    assert transcribe_corpus(family, corpus, DecodingConfig(max_new_tokens=12)) == transcribe_corpus(
        family, corpus, off
    )
