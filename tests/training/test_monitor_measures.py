"""Groups, gradient norms and drift against independent computations; what is wrong with a transcript."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechtune.corpus.table import Utterance
from speechtune.decoding.searching import compression_ratio
from speechtune.training.monitor.detectors import Finding
from speechtune.training.monitor.measures import drift, gradient_norms, layer_group, memory_gib, start_weights
from speechtune.training.monitor.record import Action, Actions, Series, is_news
from speechtune.training.monitor.transcripts import complaint, sample_ids


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.encoder.layers.3.fc1.weight", "encoder.layers.3"),
        ("base_model.model.model.decoder.layers.11.self_attn.q_proj.lora_A.default.weight", "decoder.layers.11"),
        ("model.encoder.conv1.weight", "encoder.conv1"),
        ("model.decoder.embed_tokens.weight", "decoder.embed_tokens"),
        ("proj_out.weight", "proj_out"),
    ],
)
def test_parameters_are_grouped_by_layer(name: str, group: str) -> None:
    assert layer_group(name) == group


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_gradient_norms_and_drift_of_groups() -> None:
    torch.manual_seed(0)
    net = Net()
    start = start_weights(net)
    net(torch.randn(3, 4)).sum().backward()
    norms = gradient_norms(net)
    assert set(norms) == {"layers.0", "layers.1"}
    for number in range(2):
        flat = torch.cat([p.grad.flatten() for p in net.layers[number].parameters() if p.grad is not None])
        assert norms[f"layers.{number}"] == pytest.approx(float(flat.norm()), rel=1e-5)
    with torch.no_grad():
        for parameter in net.layers[1].parameters():
            parameter.mul_(1.25)
    moved = drift(net, start)
    assert moved["layers.0"] == 0
    assert moved["layers.1"] == pytest.approx(0.25, rel=1e-5)


def test_drift_of_lora_is_that_of_the_merged_weights() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    net = get_peft_model(Net(), LoraConfig(r=2, lora_alpha=6, target_modules=["layers.0", "layers.1"]))
    start = start_weights(net)
    assert start == {}
    before = [layer.get_base_layer().weight.detach().clone() for layer in net.base_model.model.layers]
    assert set(drift(net, start).values()) == {0.0}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    moved = drift(net, start)
    merged = net.merge_and_unload()
    for number, old in enumerate(before):
        change = (merged.layers[number].weight.detach() - old).norm() / old.norm()
        assert moved[f"layers.{number}"] == pytest.approx(float(change), rel=1e-4)


def test_memory_is_that_of_this_process() -> None:
    assert 0.05 < memory_gib()["memory_gib"] < 64


@pytest.mark.parametrize(
    ("text", "reference", "duration_s", "wrong"),
    [
        ("the cat sat on the mat", "the cat sat on a mat", 2.0, False),
        ("no no no", "no no no", 1.0, False),
        ("thank you thank you thank you thank you", "thank you", 3.0, True),
        ("la la la la la la", "la la la la la la", 3.0, False),
        ("one two three four five six seven eight nine ten", "one", 0.5, True),
        ("thanks for watching this", "", 3.0, True),
        ("uh", "", 3.0, False),
    ],
)
def test_loops_and_inventions_are_told_from_speech(text: str, reference: str, duration_s: float, wrong: bool) -> None:
    assert (complaint(text, reference, duration_s) is not None) == wrong


def test_the_compression_ratio_is_whispers() -> None:
    assert compression_ratio("ha" * 200) > 10
    assert compression_ratio("") == 0
    assert compression_ratio("she sells sea shells") < 1.2


def test_samples_are_fixed_and_span_the_lengths() -> None:
    rows = [Utterance(utterance_id=f"u{n:02d}", file_name="x", text="", duration_s=float(n)) for n in range(20)]
    assert sample_ids(rows[::-1], 3) == ["u00", "u10", "u19"]
    assert sample_ids(rows, 99) == [row.utterance_id for row in rows]
    assert sample_ids(rows, 1) == ["u00"]
    assert sample_ids(rows, 0) == []


def test_series_are_cut_back_and_keep_actions(tmp_path: Path) -> None:
    series = Series(tmp_path / "monitor.jsonl", write=True)
    series.add([{"step": 1, "kind": "a"}, {"step": 5, "kind": "b"}, {"step": 6, "kind": "c", "action": "went back"}])
    again = Series(tmp_path / "monitor.jsonl", write=True)
    again.back_to(3)
    assert [row["step"] for row in Series(tmp_path / "monitor.jsonl", write=False).rows] == [1, 6]


def test_an_action_that_was_only_written_down_is_carried_out_by_the_next_start(tmp_path: Path) -> None:
    from speechtune.training.trainer import checkpoints, mark_complete

    folder = tmp_path / "checkpoints"
    for step in (10, 20, 30):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        mark_complete(folder / f"checkpoint-{step}")
    reader = Actions(tmp_path, folder, write=False)
    reader.add(Action("rollback", "not_finite", 35, 10, 0.5, done=False))
    assert len(checkpoints(folder)) == 3
    writer = Actions(tmp_path, folder, write=True)
    writer.all = reader.all
    writer._save()
    started = Actions(tmp_path, folder, write=True)
    assert [step for step, _ in checkpoints(folder)] == [10]
    assert started.rate() == 0.5
    assert started.skipped() == set()
    started.add(Action("rollback", "not_finite", 35, 10, 1.0, done=False))
    assert started.skipped() == {35}


def test_the_same_finding_is_told_once_in_a_while() -> None:
    told = [{"step": 10, "kind": "plateau"}]
    one = Finding(40, "plateau", "info", "", "")
    assert not is_news(one, told, [10, 20, 30, 40])
    assert is_news(one, told, [10, 15, 20, 25, 30, 40])
    assert is_news(Finding(40, "drift", "info", "", "", subject="x"), told, [])
