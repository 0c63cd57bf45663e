"""A wrong key or value in a configuration gets one sentence that names the place and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import load_config, validate
from speechtune.core.errors import InputError


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    column: str
    least: float = 0.0


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Item] = Field(default_factory=list)
    rate: float = Field(0.5, gt=0)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    part: Section = Field(default_factory=Section)


def sentence(values: dict[str, object]) -> str:
    with pytest.raises(InputError) as raised:
        validate(Whole, values, "x.yaml")
    return str(raised.value)


def test_an_unknown_key_names_the_nearest_valid_one_also_inside_a_list() -> None:
    assert "did you mean part.rate" in sentence({"part": {"rat": 1}})
    assert "did you mean part.items.1.column" in sentence({"part": {"items": [{"column": "a"}, {"colum": "b"}]}})
    wrong = sentence({"part": {"items": [{"zzz": 1}]}})
    assert "part.items.0.column" in wrong
    assert "part.rate" not in wrong


def test_a_wrong_value_is_shown_but_a_whole_section_is_not() -> None:
    assert sentence({"part": {"rate": -1}}).endswith("not -1")
    assert "{" not in sentence({"part": {"items": {"column": "a"}}})


def test_a_number_in_a_key_changes_one_item_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("items: [{column: a}, {column: b}]", encoding="utf-8")
    changed = load_config(Section, path, ["items.1.column=c", "rate=0.2"])
    assert [item.column for item in changed.items] == ["a", "c"]
    assert changed.rate == 0.2
    with pytest.raises(InputError, match="out of range"):
        load_config(Section, path, ["items.7.column=c"])


class Either(BaseModel):
    targets: list[str] | dict[str, list[float]]


def test_a_mapping_takes_the_place_of_a_list_and_the_reverse(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("targets: [attention]", encoding="utf-8")
    assert load_config(Either, path, ["targets={encoder: [0.5, 1.0]}"]).targets == {"encoder": [0.5, 1.0]}
    with pytest.raises(InputError, match=r"settings\.yaml cannot be read"):
        load_config(Either, path, ["targets.encoder=[0.5, 1.0]"])
    path.write_text("targets: {encoder: [0.5, 1.0]}", encoding="utf-8")
    assert load_config(Either, path, ["targets=[mlp]"]).targets == ["mlp"]
    assert load_config(Either, path, ["targets={decoder: [0.0, 1.0]}"]).targets == {
        "encoder": [0.5, 1.0],
        "decoder": [0.0, 1.0],
    }
