"""Every key of PEFT's configuration has its handling, in the code and in the guide."""

import dataclasses
from pathlib import Path

import pytest
from peft import LoraConfig

from lora_core import UnsupportedAdapter
from lora_core.interop.peft_keys import KEYS, Handling, check_keys

GUIDE = Path(__file__).parents[3] / "docs" / "lora_core.md"


def test_the_table_has_every_key_of_the_installed_peft_and_no_other() -> None:
    assert set(KEYS) == {field.name for field in dataclasses.fields(LoraConfig)}


def test_the_guide_has_the_same_table() -> None:
    rows = [line.split("|")[1:-1] for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    stated = {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows if len(cells) == 3}
    stated = {key: value for key, value in stated.items() if key in KEYS}
    assert stated == {key: [handling.value, remark] for key, (handling, remark) in KEYS.items()}


@pytest.mark.requirement("LI-2.6")
def test_a_configuration_of_defaults_is_accepted_and_each_refused_key_is_refused_by_its_name() -> None:
    usual = {**LoraConfig(target_modules=["q_proj"]).to_dict(), "peft_type": "LORA", "target_modules": ["q_proj"]}
    check_keys(usual)
    for key, (handling, _) in KEYS.items():
        if handling is Handling.REFUSED:
            for neutral in (None, False, [], {}, {"a": None, "b": {"c": False}}):
                check_keys(usual | {key: neutral})
            with pytest.raises(UnsupportedAdapter) as error:
                check_keys(usual | {key: {"a": 1}})
            assert error.value.field == key
        elif handling is not Handling.APPLIED:
            check_keys(usual | {key: {"a": 1}})


def test_keys_of_a_newer_peft_are_accepted_while_they_are_unset() -> None:
    usual = {"peft_type": "LORA", "r": 4}
    for neutral in (None, False, 0, "", [], {}, {"enabled": False}):
        check_keys(usual | {"a_setting_of_tomorrow": neutral})
    with pytest.raises(UnsupportedAdapter, match="does not know"):
        check_keys(usual | {"a_setting_of_tomorrow": "on"})
