"""Skipped blocks and masks inside the encoder: only in training, as drawn, without a trace afterwards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.disturb import HiddenMask, linear_rates, set_hidden_masks, set_layer_drop
from speechtune.models.family import load_family
from speechtune.models.observe import Needs, taps_of, watch
from speechtune.models.whisper import WhisperFamily

MASKS = {"time_masks": 2, "time_width": 30, "bin_masks": 2, "bin_width": 8}


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    found = load_family(tiny_model, device="cpu")
    assert isinstance(found, WhisperFamily)
    return found


def encode(family: WhisperFamily, features: torch.Tensor) -> torch.Tensor:
    return family.part("encoder")(features).last_hidden_state


def test_rates_rise_linearly_to_the_deepest() -> None:
    assert linear_rates(4, 0.2) == pytest.approx([0.05, 0.1, 0.15, 0.2])


def test_blocks_are_skipped_as_often_as_said_and_their_weights_get_a_gradient_of_zero(family: WhisperFamily) -> None:
    taps = taps_of(family, "a test")
    set_layer_drop(taps, {"encoder": 0.6, "decoder": 0.0})
    features = torch.randn(1, 80, 20)
    family.model.train()
    skipped = np.zeros(2)
    torch.manual_seed(0)
    inputs: list[torch.Tensor] = []
    out: list[torch.Tensor] = []
    taps.blocks["encoder"][0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    taps.blocks["encoder"][1].register_forward_hook(lambda _, args, output: out.append(output))
    for _ in range(400):
        with watch(taps, Needs(parts=frozenset({"encoder"}))) as seen, torch.no_grad():
            encode(family, features)
        first = seen.hidden["encoder"][0]
        skipped += [torch.equal(first, inputs[-1]), torch.equal(first, out[-1])]
    assert skipped / 400 == pytest.approx([0.3, 0.6], abs=0.07)
    for block in taps.blocks["encoder"]:
        block.__dict__["layerdrop"] = 1.0
    encode(family, features).sum().backward()
    grads = [one.grad for one in taps.blocks["encoder"][0].parameters()]
    assert all(one is not None and not one.any() for one in grads)


def test_evaluation_and_an_ended_disturbance_are_bit_identical(family: WhisperFamily) -> None:
    taps = taps_of(family, "a test")
    features = torch.randn(2, 80, 60)
    family.model.eval()
    with torch.no_grad():
        before = encode(family, features)
        set_layer_drop(taps, {"encoder": 0.9, "decoder": 0.9})
        set_hidden_masks(family.model, taps, MASKS)
        assert torch.equal(encode(family, features), before)
        family.model.train()
        torch.manual_seed(1)
        assert not torch.equal(encode(family, features), before)
        twin = copy.deepcopy(family.model).eval()
        assert torch.equal(twin.model.encoder(features).last_hidden_state, before)  # type: ignore[operator, union-attr]
        set_layer_drop(taps, {"encoder": 0.0, "decoder": 0.0})
        set_hidden_masks(family.model, taps, {**MASKS, "time_masks": 0, "bin_masks": 0})
        assert torch.equal(encode(family, features), before)
    assert set(family.model.state_dict()) == set(twin.state_dict())


def test_a_saved_model_knows_nothing_of_it(family: WhisperFamily, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    taps = taps_of(family, "a test")
    set_layer_drop(taps, {"encoder": 0.5, "decoder": 0.5})
    set_hidden_masks(family.model, taps, MASKS)
    family.save(tmp_path / "model")
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in family.model.state_dict().items())


def test_a_mask_can_be_drawn_written_and_replayed() -> None:
    mask = HiddenMask()
    mask.p, mask.masks = 1.0, MASKS
    torch.manual_seed(4)
    draws = mask.draw(3, 50, 16)
    torch.manual_seed(4)
    hidden = torch.randn(3, 16, 50) + 10
    masked = mask(hidden) if torch.manual_seed(4) else hidden
    replayed = mask.masked(hidden, [MaskDraw.from_json(one.to_json()) for one in draws])
    assert torch.equal(masked, replayed)
    for row, draw in enumerate(draws):
        zero = np.zeros((16, 50), dtype=bool)
        for first, width in draw.time:
            zero[:, first : first + width] = True
        for first, width in draw.bins:
            zero[first : first + width] = True
        assert np.array_equal(masked[row].numpy() == 0, zero)
    mask.frames_last = False
    assert torch.equal(mask.masked(hidden.transpose(1, 2), draws).transpose(1, 2), masked)


def test_a_masked_frame_keeps_its_position(family: WhisperFamily) -> None:
    taps = taps_of(family, "a test")
    set_hidden_masks(family.model, taps, {"time_masks": 0, "time_width": 1, "bin_masks": 1, "bin_width": 32})
    family.model.train()
    model: Any = family.model
    mask = next(one for one in model.modules() if isinstance(one, HiddenMask))
    mask.draw = lambda clips, frames, channels: [MaskDraw(((0, frames),), ())] * clips  # type: ignore[method-assign]
    got: list[torch.Tensor] = []
    taps.blocks["encoder"][0].register_forward_pre_hook(lambda _, args: got.append(args[0]))
    encode(family, torch.randn(1, 80, 20))
    assert torch.equal(got[0][0], model.model.encoder.embed_positions.weight[:10])


def test_what_a_model_lacks_is_refused(family: WhisperFamily) -> None:
    import dataclasses

    taps = dataclasses.replace(taps_of(family, "a test"), droppable=False, front_end=None)
    with pytest.raises(InputError, match="cannot be skipped"):
        set_layer_drop(taps, {"encoder": 0.5})
    with pytest.raises(InputError, match="spec_augment"):
        set_hidden_masks(family.model, taps, MASKS)
