"""config.json in both spellings, and what it says when something is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from gptnode.errors import ModelError, ModelFileError, UnsupportedModelError
from gptnode.model.config import ModelConfig, RopeConfig
from tests.model.tiny import tiny_config

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def old_config(**changes: Any) -> dict[str, Any]:
    config = tiny_config(rope_theta=5000.0, torch_dtype="bfloat16", **changes)
    for name in ("rope_parameters", "dtype"):
        if name not in changes:
            del config[name]
    return config


def test_both_spellings_are_read() -> None:
    new = ModelConfig.from_json(
        tiny_config(dtype="bfloat16", rope_parameters={**LLAMA3, "rope_theta": 5000.0})
    )
    old = ModelConfig.from_json(old_config(rope_scaling=LLAMA3))
    assert new == old
    assert new.rope == RopeConfig("llama3", 5000.0, 8.0, 32)
    assert new.dtype == "bf16"


def test_the_oldest_spelling_calls_the_kind_type() -> None:
    config = ModelConfig.from_json(old_config(rope_scaling={"type": "linear", "factor": 4}))
    assert config.rope == RopeConfig("linear", 5000.0, 4.0)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    kept = {key: value for key, value in tiny_config().items() if key != "model_type"}
    LlamaConfig(**kept, head_dim=24, eos_token_id=[5, 6]).save_pretrained(tmp_path)
    config = ModelConfig.from_folder(tmp_path)
    assert (config.head_dim, config.eos_ids, config.n_blocks) == (24, (5, 6), 4)


def test_defaults_are_those_of_llama() -> None:
    config = tiny_config()
    for name in ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "dtype"):
        del config[name]
    del config["rope_parameters"], config["tie_word_embeddings"]
    parsed = ModelConfig.from_json(json.dumps(config))
    assert (parsed.n_kv_heads, parsed.head_dim, parsed.max_positions) == (4, 8, 2048)
    assert (parsed.norm_eps, parsed.rope, parsed.dtype) == (1e-6, RopeConfig(), "f32")
    assert (parsed.tie_embeddings, parsed.attention_bias, parsed.mlp_bias) == (False,) * 3
    assert (parsed.bos_id, parsed.eos_ids) == (None, ())


def test_ids_that_end_an_answer_come_from_both_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(eos_token_id=2)))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 2, 7]}')
    assert ModelConfig.from_folder(tmp_path).eos_ids == (9, 2, 7)


def test_a_mistral_without_a_sliding_window_is_a_llama() -> None:
    config = tiny_config(model_type="mistral", sliding_window=None)
    assert ModelConfig.from_json(config) == ModelConfig.from_json(tiny_config())


def test_dynamic_scaling_makes_room_past_max_positions() -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.5}
    assert ModelConfig.from_json(tiny_config(rope_parameters=dynamic)).context_tokens == 160
    assert ModelConfig.from_json(tiny_config()).context_tokens == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number of at least 1, not '32'"),
        ({"vocab_size": True}, "vocab_size must be a whole number of at least 1, not True"),
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1, not 0"),
        ({"num_hidden_layers": 4.0}, "num_hidden_layers must be a whole number of at least 1"),
        ({"intermediate_size": [1]}, "intermediate_size must be a whole number of at least 1, not"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, which doesn't divide"),
        ({"num_attention_heads": 6}, "num_attention_heads is 6, which doesn't divide hidden_size"),
        ({"head_dim": 7}, "head_dim is 7: it must be even"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a number above 0, not 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number above 0, not nan"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, not 'no'"),
        ({"eos_token_id": "x"}, "eos_token_id must be a token id or a list of them, not 'x'"),
        ({"eos_token_id": [1, -1]}, "eos_token_id must be a token id or a list of them"),
        ({"bos_token_id": [1]}, "bos_token_id must be a token id, not a list"),
        ({"rope_parameters": 3}, "rope_parameters must be an object, not 3"),
        (
            {"rope_parameters": {"rope_type": "linear"}},
            "rope_parameters.factor is missing",
        ),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 0.5}},
            "rope_parameters.factor must be at least 1, not 0.5",
        ),
        (
            {"rope_parameters": {**LLAMA3, "high_freq_factor": 1}},
            "rope_parameters.high_freq_factor must be above low_freq_factor 1, not 1",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2, "truncate": 1}},
            "rope_parameters.truncate must be true or false, not 1",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2, "rope_theta": 1}},
            "rope_parameters.rope_theta must be above 1 for yarn, not 1",
        ),
        ({"model_type": None}, "model_type is missing"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        ModelConfig.from_json(tiny_config(**changes), source="m/config.json")
    assert caught.value.detail.startswith(f"m/config.json: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; supported are 'llama', and 'mistral'"),
        ({"model_type": "mistral"}, "sliding_window is not null"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding_window is not null"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported is 'silu'"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "quantization_config.quant_method is 'gptq', whose weights gptnode doesn't read; take",
        ),
        ({"quantization_config": {}}, "quantization_config.quant_method is None"),
        (
            {"quantization_config": {"quant_method": "gptnode", "bits": 4, "version": 2}},
            "quantization_config.version is 2; this gptnode reads version 1",
        ),
        (
            {"quantization_config": {"quant_method": "gptnode", "bits": 2, "version": 1}},
            "quantization_config.bits is 2; supported are 8 and 4",
        ),
        ({"dtype": "float64"}, "dtype is 'float64'; supported are bfloat16, float16, float32"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "rope_parameters.rope_type is 'longrope'; supported are default, linear, dynamic",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is set; supported is 1 only"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        ModelConfig.from_json(tiny_config(**changes), source="m/config.json")
    assert caught.value.detail.startswith(f"m/config.json: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list instead of an object"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelFileError) as caught:
        ModelConfig.from_folder(tmp_path)
    assert caught.value.detail.startswith(f"{path}: {message}")


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json: no such file"):
        ModelConfig.from_folder(tmp_path)


def test_a_config_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelFileError, match=r"config\.json: can't be read as text"):
        ModelConfig.from_folder(tmp_path)


@given(st.sampled_from(sorted(tiny_config())), json_values)
def test_any_value_anywhere_is_a_config_or_a_typed_error(name: str, value: object) -> None:
    try:
        config = ModelConfig.from_json(tiny_config(**{name: value}))
    except ModelError as error:
        assert "\n" not in error.detail
    else:
        assert config.n_heads % config.n_kv_heads == 0


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "factor",
                "rope_theta",
                "original_max_position_embeddings",
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "truncate",
                "low_freq_factor",
                "high_freq_factor",
            ]
        ),
        json_values,
    ),
    st.sampled_from(["default", "linear", "dynamic", "yarn", "llama3"]),
)
def test_any_scaling_is_a_config_or_a_typed_error(scaling: dict[str, Any], kind: str) -> None:
    try:
        ModelConfig.from_json(tiny_config(rope_parameters={**scaling, "rope_type": kind}))
    except ModelError as error:
        assert "\n" not in error.detail
