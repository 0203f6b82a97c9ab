from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.cli.settings import (
    SETTINGS,
    ChatSettings,
    changed,
    model_defaults,
    setting_named,
    shown,
)
from gptnode.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("temperature", "0", "temperature", 0.0),
        ("temperature", "1.5", "temperature", 1.5),
        ("top-k", "40", "top_k", 40),
        ("top_k", "0", "top_k", 0),
        ("--top-p", "0.9", "top_p", 0.9),
        ("MIN-P", "0.05", "min_p", 0.05),
        ("repetition-penalty", "1.1", "repetition_penalty", 1.1),
        ("seed", "42", "seed", 42),
        ("seed", "none", "seed", None),
        ("max-tokens", "off", "max_tokens", None),
        ("stop", r'"User:" END\n', "stop", ("User:", "END\n")),
        ("stop", "none", "stop", ()),
    ],
)
def test_a_setting_is_read_from_text(name: str, text: str, field: str, value: object) -> None:
    assert getattr(changed(ChatSettings(seed=1, stop=("x",)), name, text), field) == value


@pytest.mark.parametrize(
    ("name", "text", "detail"),
    [
        ("temperature", "-1", "temperature takes a number from 0 to 10, not '-1'"),
        ("temperature", "warm", "temperature takes a number from 0 to 10, not 'warm'"),
        ("temperature", "nan", "temperature takes a number from 0 to 10, not 'nan'"),
        ("top-p", "0", "top-p takes a number above 0 up to 1, not '0'"),
        ("top-p", "1.01", "top-p takes a number above 0 up to 1, not '1.01'"),
        ("top-k", "2.5", "top-k takes a whole number from 0, not '2.5'"),
        ("max-tokens", "0", "max-tokens takes a whole number from 1, not '0'"),
        ("stop", '""', 'stop takes at least one word, such as "User:" (or none), not \'""\''),
        ("temprature", "1", "no setting is called 'temprature' (did you mean temperature?)"),
    ],
)
def test_a_wrong_value_is_told_with_the_range_of_right_ones(
    name: str, text: str, detail: str
) -> None:
    with pytest.raises(UsageError) as caught:
        changed(ChatSettings(), name, text)
    assert caught.value.detail == detail


def test_a_name_like_no_other_is_answered_with_all_names() -> None:
    with pytest.raises(UsageError, match="there are max-tokens, temperature, top-k"):
        setting_named("qqqq")


@given(
    st.builds(
        ChatSettings,
        max_tokens=st.none() | st.integers(1, 10**6),
        temperature=st.sampled_from([0.0, 0.7, 1.25]),
        top_k=st.integers(0, 1000),
        top_p=st.sampled_from([0.1, 0.95, 1.0]),
        min_p=st.sampled_from([0.0, 0.05]),
        repetition_penalty=st.sampled_from([1.0, 1.1]),
        seed=st.none() | st.integers(0, 2**63 - 1),
        stop=st.lists(
            st.sampled_from(["User:", "two words", "\n\n", "it's", 'say "no"', "\t", "#", "ä"])
        ).map(tuple),
    )
)
def test_what_is_shown_can_be_set_again(settings: ChatSettings) -> None:
    again = ChatSettings()
    for setting in SETTINGS:
        again = changed(again, setting.name, shown(settings, setting))
    assert again == settings


def write_wishes(folder: Path, **wishes: object) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(wishes))
    return folder


def test_a_model_that_does_not_sample_is_greedy(tmp_path: Path) -> None:
    assert model_defaults(write_wishes(tmp_path, do_sample=False)).temperature == 0


def test_a_model_that_samples_brings_its_own_numbers(tmp_path: Path) -> None:
    folder = write_wishes(tmp_path, do_sample=True, temperature=0.6, top_p=0.9, top_k=50, seed=7)
    assert model_defaults(folder) == ChatSettings(temperature=0.6, top_p=0.9, top_k=50)


def test_wishes_out_of_range_are_left_out(tmp_path: Path) -> None:
    folder = write_wishes(tmp_path, do_sample=True, temperature=-3, top_p="all", min_p=True)
    assert model_defaults(folder) == ChatSettings(temperature=1.0, top_p=1.0)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"eos_token_id": 2}', '{"do_sample": 1}'])
def test_a_model_that_does_not_say_gets_the_usual_defaults(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert model_defaults(tmp_path) == ChatSettings(temperature=0.7, top_p=0.95)
