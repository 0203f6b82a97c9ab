"""Hugging Face's config.json -> ModelConfig: the numbers that say what the network computes.

Reads the old spelling (``rope_theta``, ``rope_scaling``, ``torch_dtype``) and the new one
(``rope_parameters``, ``dtype``). Knows no tensors: whether the weights fit the numbers is checked
where they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gptnode.errors import ModelFileError, UnsupportedModelError
from gptnode.model.dtypes import HF_DTYPES, QUANTISED_BITS
from gptnode.model.json_fields import JsonFields, parse_json_object, read_json_object

__all__ = ["QUANT_METHOD", "QUANT_VERSION", "ROPE_KINDS", "ModelConfig", "RopeConfig"]

CONFIG_FILE: Final = "config.json"
GENERATION_FILE: Final = "generation_config.json"
QUANT_METHOD: Final = "gptnode"
QUANT_VERSION: Final = 1
"""The form of `gptnode.model.quantised`: another layout or group would be another version."""
ROPE_KINDS: Final = ("default", "linear", "dynamic", "yarn", "llama3")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """How positions turn into rotations: `gptnode.model.rope` says what each number does.

    ``original_max_positions`` is the length in tokens that the unscaled rotations were trained
    for. Fields that ``kind`` doesn't use keep their defaults: equal rotations compare equal.
    """

    kind: str = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    original_max_positions: int = 0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Llama network, checked for consistency.

    ``n_heads`` query heads share ``n_kv_heads`` keys and values of width ``head_dim``.
    ``eos_ids`` joins those of generation_config.json (first) and config.json; empty if neither
    names one. ``dtype`` (``bf16``, ``f16``, ``f32``; ``int8`` or ``int4`` where `gptnode quantize`
    wrote the files) is what config.json says the weights are in.
    """

    vocab_size: int
    d_model: int
    n_blocks: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    norm_eps: float
    rope: RopeConfig
    max_positions: int
    tie_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]
    dtype: str

    @property
    def context_tokens(self) -> int:
        """The longest context, in tokens, that the model is made for.

        ``max_position_embeddings`` is that length, except under dynamic scaling, where it is the
        length before scaling sets in.
        """
        if self.rope.kind == "dynamic":
            return int(self.max_positions * self.rope.factor)
        return self.max_positions

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read config.json, and generation_config.json if there is one, in ``folder``.

        Raises:
            ModelFileError: a file is missing or damaged; the error names the field.
            UnsupportedModelError: it is not a Llama, or uses what gptnode can't compute.
        """
        return cls.from_file(folder / CONFIG_FILE)

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Like ``from_folder`` for a config that has another name or place."""
        beside = path.parent / GENERATION_FILE
        generation = JsonFields({}, str(beside))
        if beside.exists():
            generation = JsonFields(read_json_object(beside), str(beside))
        return _parse(JsonFields(read_json_object(path), str(path)), generation)

    @classmethod
    def from_json(
        cls, config: str | Mapping[str, Any], *, source: str = CONFIG_FILE
    ) -> ModelConfig:
        """From the text or the parsed object of a config.json; ``source`` is its name in errors."""
        values = parse_json_object(config, source) if isinstance(config, str) else config
        return _parse(JsonFields(values, source), JsonFields({}, GENERATION_FILE))


def _parse(fields: JsonFields, generation: JsonFields) -> ModelConfig:
    _check_supported(fields)
    d_model = fields.count("hidden_size")
    n_heads = fields.count("num_attention_heads")
    n_kv_heads = fields.count("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        raise ModelFileError(
            f"{fields.where('num_key_value_heads')} is {n_kv_heads}, which doesn't divide "
            f"num_attention_heads {n_heads}"
        )
    if not fields.has("head_dim") and d_model % n_heads:
        raise ModelFileError(
            f"{fields.where('num_attention_heads')} is {n_heads}, which doesn't divide "
            f"hidden_size {d_model}, and there is no head_dim"
        )
    head_dim = fields.count("head_dim", d_model // n_heads or None)
    if head_dim % 2:
        raise ModelFileError(f"{fields.where('head_dim')} is {head_dim}: it must be even")
    max_positions = fields.count("max_position_embeddings", 2048)
    eos_ids = generation.token_ids("eos_token_id") + fields.token_ids("eos_token_id")
    return ModelConfig(
        vocab_size=fields.count("vocab_size"),
        d_model=d_model,
        n_blocks=fields.count("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_ff=fields.count("intermediate_size"),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        rope=_parse_rope(fields, max_positions, head_dim),
        max_positions=max_positions,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        bos_id=fields.token_id("bos_token_id"),
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        dtype=_parse_dtype(fields),
    )


def _check_supported(fields: JsonFields) -> None:
    """Refuse what would load and then compute something else."""
    model_type = fields.text("model_type")
    if model_type not in ("llama", "mistral"):
        raise UnsupportedModelError(
            f"{fields.where('model_type')} is {model_type!r}; supported are 'llama', and "
            "'mistral' without a sliding window"
        )
    # Absent is not null here: transformers then slides a window of 4096 tokens.
    if model_type == "mistral" and not fields.is_null("sliding_window"):
        raise UnsupportedModelError(
            f"{fields.where('sliding_window')} is not null; "
            "a mistral model is supported without a sliding window"
        )
    activation = fields.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModelError(
            f"{fields.where('hidden_act')} is {activation!r}; supported is 'silu'"
        )


def _parse_dtype(fields: JsonFields) -> str:
    quantised = fields.nested("quantization_config")
    if quantised is not None:
        return _parse_quantisation(quantised)
    name = "dtype" if fields.has("dtype") else "torch_dtype"
    spelled = fields.text(name, "float32").removeprefix("torch.")
    if spelled not in HF_DTYPES:
        raise UnsupportedModelError(
            f"{fields.where(name)} is {spelled!r}; supported are {', '.join(HF_DTYPES)}"
        )
    return HF_DTYPES[spelled]


def _parse_quantisation(fields: JsonFields) -> str:
    """``int8`` or ``int4``: what `gptnode quantize` wrote."""
    method = fields.raw("quant_method")
    if method != QUANT_METHOD:
        shown = repr(method)[:40]
        raise UnsupportedModelError(
            f"{fields.where('quant_method')} is {shown}, whose weights gptnode doesn't read; take "
            "the model in bfloat16 and use `gptnode quantize DIR OUT` or the dtype int8 or int4"
        )
    version, bits = fields.count("version"), fields.count("bits")
    if version != QUANT_VERSION:
        raise UnsupportedModelError(
            f"{fields.where('version')} is {version}; this gptnode reads version {QUANT_VERSION}: "
            "quantise the original again with it"
        )
    for name, known in QUANTISED_BITS.items():
        if known == bits:
            return name
    raise UnsupportedModelError(f"{fields.where('bits')} is {bits}; supported are 8 and 4")


def _parse_rope(fields: JsonFields, max_positions: int, head_dim: int) -> RopeConfig:
    scaling = fields.nested("rope_parameters") or fields.nested("rope_scaling")
    if scaling is None:
        scaling = JsonFields({}, fields.where("rope_parameters"))
    theta = scaling.positive("rope_theta", fields.positive("rope_theta", 10_000.0))
    for holder in (scaling, fields):
        if holder.positive("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedModelError(
                f"{holder.where('partial_rotary_factor')} is set; supported is 1 only"
            )
    kind_field = "rope_type" if scaling.has("rope_type") else "type"
    kind = scaling.text(kind_field, "default")
    if kind not in ROPE_KINDS:
        raise UnsupportedModelError(
            f"{scaling.where(kind_field)} is {kind!r}; supported are {', '.join(ROPE_KINDS)}"
        )
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(kind, theta, scaling.positive("factor"))
    if kind == "dynamic":
        factor = scaling.positive("factor")
        if factor < 1:
            raise ModelFileError(f"{scaling.where('factor')} must be at least 1, not {factor:g}")
        if head_dim < 4:
            raise ModelFileError(
                f"{fields.where('head_dim')} must be at least 4 for {kind} scaling"
            )
        return RopeConfig(kind, theta, factor, max_positions)
    # transformers lets a field outside of the scaling's object win.
    holder = fields if fields.has("original_max_position_embeddings") else scaling
    original = holder.count("original_max_position_embeddings", max_positions)
    if kind == "llama3":
        low, high = scaling.positive("low_freq_factor"), scaling.positive("high_freq_factor")
        if high <= low:
            raise ModelFileError(
                f"{scaling.where('high_freq_factor')} must be above low_freq_factor {low:g}, "
                f"not {high:g}"
            )
        return RopeConfig(
            kind,
            theta,
            scaling.positive("factor"),
            original,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    if theta <= 1:
        raise ModelFileError(
            f"{scaling.where('rope_theta')} must be above 1 for yarn, not {theta:g}"
        )
    return RopeConfig(
        kind,
        theta,
        scaling.positive("factor", max_positions / original),
        original,
        attention_factor=scaling.optional_positive("attention_factor"),
        mscale=scaling.optional_positive("mscale"),
        mscale_all_dim=scaling.optional_positive("mscale_all_dim"),
        beta_fast=scaling.positive("beta_fast", 32.0),
        beta_slow=scaling.positive("beta_slow", 1.0),
        truncate=scaling.flag("truncate", True),
    )
