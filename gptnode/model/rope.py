"""Rotary position embeddings: which angle each pair of a head's channels turns by at a position.

RoFormer (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Hugging Face's Llama,
with the scalings that stretch a model past the length it was trained for: linear (Chen et al.
2023, arXiv 2306.15595), dynamic NTK (bloc97 and emozilla 2023), YaRN (Peng et al. 2023, arXiv
2309.00071) and Llama 3's (Meta 2024). Operations and their order are those of transformers'
``modeling_rope_utils``, so that the rotations are equal to the bit.

It knows no weights and no cache. Nothing is tabulated: cosines and sines are computed once a
step for its own positions, which all blocks of the step share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gptnode.model.config import RopeConfig

__all__ = ["Rope", "rotate"]


class Rope:
    """The rotations of one model.

    **Dynamic scaling past the original length.** Its frequencies depend on the length of the
    context: a step that ends at ``length`` uses the frequencies for ``length`` for all of its
    tokens, while keys in the cache keep the rotation they were stored with. This is what
    transformers does when it generates with a cache, and the same steps give the same numbers on
    every node. But how a prompt is cut into steps then matters: chunked prefill equals one-shot
    prefill only as long as the context stays within ``original_max_positions``. All other
    scalings depend on the position alone and have no such limit.
    """

    def __init__(self, config: RopeConfig, head_dim: int, device: torch.device) -> None:
        """Work out the frequencies for heads of width ``head_dim``."""
        self._config = config
        self._head_dim = head_dim
        self._device = device
        self._frequencies = _frequencies(config, head_dim).to(device)
        self._amplitude = _yarn_amplitude(config) if config.kind == "yarn" else 1.0

    def angles(self, start: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions ``start .. start + tokens``.

        Returns:
            Two tensors (T, 1, head_dim) of ``dtype``, computed in f32, that broadcast over heads.
        """
        frequencies = self._frequencies
        config, length = self._config, start + tokens
        if config.kind == "dynamic" and length > config.original_max_positions:
            frequencies = _dynamic_frequencies(config, self._head_dim, length).to(self._device)
        positions = torch.arange(start, length, device=self._device).to(torch.float32)
        half = positions[:, None, None] * frequencies
        angles = torch.cat((half, half), dim=-1)
        cosines, sines = angles.cos() * self._amplitude, angles.sin() * self._amplitude
        return cosines.to(dtype), sines.to(dtype)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn ``x`` (B, T, H, head_dim) by the angles (T, 1, head_dim) of its positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-second, first), dim=-1) * sines


def _frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians a position, (head_dim / 2,) in f32, for contexts up to the original length."""
    if config.kind == "yarn":
        return _yarn_frequencies(config, head_dim)
    plain = _plain_frequencies(config.theta, head_dim)
    if config.kind == "linear":
        return plain / config.factor
    if config.kind == "llama3":
        return _llama3_frequencies(config, plain)
    return plain


def _exponents(head_dim: int) -> Tensor:
    return torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float32) / head_dim


def _plain_frequencies(theta: float | Tensor, head_dim: int) -> Tensor:
    frequencies: Tensor = 1.0 / (theta ** _exponents(head_dim))
    return frequencies


def _dynamic_frequencies(config: RopeConfig, head_dim: int, length: int) -> Tensor:
    """NTK-aware: a larger base, so that the slowest channel just spans ``length`` tokens."""
    # A tensor, because transformers rounds the new base to f32.
    tokens = torch.tensor(length)
    stretch = (config.factor * tokens / config.original_max_positions) - (config.factor - 1)
    theta = config.theta * stretch ** (head_dim / (head_dim - 2))
    return _plain_frequencies(theta, head_dim)


def _llama3_frequencies(config: RopeConfig, plain: Tensor) -> Tensor:
    """Slow channels are divided by the factor, fast ones kept, those between interpolated."""
    original, factor = config.original_max_positions, config.factor
    low, high = config.low_freq_factor, config.high_freq_factor
    wavelengths = 2 * math.pi / plain
    scaled = torch.where(wavelengths > original / low, plain / factor, plain)
    smooth = (original / wavelengths - low) / (high - low)
    between = (1 - smooth) * scaled / factor + smooth * scaled
    is_between = ~(wavelengths < original / high) * ~(wavelengths > original / low)
    return torch.where(is_between, between, scaled)


def _yarn_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Channels that turn often within the original length are kept, seldom ones interpolated."""
    powers: Tensor = config.theta ** _exponents(head_dim)
    extrapolated, interpolated = 1.0 / powers, 1.0 / (config.factor * powers)
    low = _yarn_channel(config, head_dim, config.beta_fast)
    high = _yarn_channel(config, head_dim, config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # the ramp would divide by zero
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)
    keep = 1 - ramp.clamp(0, 1)
    return interpolated * (1 - keep) + extrapolated * keep


def _yarn_channel(config: RopeConfig, head_dim: int, turns: float) -> float:
    """The channel that turns ``turns`` times within the original length."""
    wavelength = config.original_max_positions / (turns * 2 * math.pi)
    return head_dim * math.log(wavelength) / (2 * math.log(config.theta))


def _yarn_amplitude(config: RopeConfig) -> float:
    """By how much cosines and sines are enlarged: attention gets sharper in longer contexts."""
    if config.attention_factor is not None:
        return config.attention_factor

    def scale(mscale: float) -> float:
        return 1.0 if config.factor <= 1 else 0.1 * mscale * math.log(config.factor) + 1.0

    if config.mscale and config.mscale_all_dim:
        return scale(config.mscale) / scale(config.mscale_all_dim)
    return scale(1.0)
