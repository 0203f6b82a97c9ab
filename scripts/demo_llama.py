"""A Llama for training on a CPU: bf16 throughout, matrices of one input fused into one.

It computes what `transformers` computes for the same weights; `tensors()` gives them the names
that Hugging Face model folders use.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a Llama."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 512
    n_blocks: int = 8
    n_heads: int = 4
    n_kv_heads: int = 2
    max_positions: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.n_heads


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, shape: LlamaShape) -> None:
        """Start with a scale of one."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.hidden_size))
        self.eps = shape.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Block(nn.Module):
    """Grouped-query attention and a SwiGLU MLP, each after a norm."""

    def __init__(self, shape: LlamaShape) -> None:
        """Make the matrices of one block."""
        super().__init__()
        self.shape = shape
        self.sizes = [n * shape.head_dim for n in (shape.n_heads, *2 * (shape.n_kv_heads,))]
        self.qkv = nn.Linear(shape.hidden_size, sum(self.sizes), bias=False)
        self.out = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.gate_up = nn.Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)
        self.attention_norm, self.mlp_norm = Norm(shape), Norm(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self._attend(self.attention_norm(x), cos, sin, mask)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        # Plain matrix products: for heads this small, faster here than the fused attention.
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, -1, self.shape.head_dim).transpose(1, 2)  # (B, H, T, hd)
            for part in self.qkv(x).split(self.sizes, dim=-1)
        )
        group = self.shape.n_heads // self.shape.n_kv_heads
        k = rotate(k, cos, sin).repeat_interleave(group, dim=1)
        v = v.repeat_interleave(group, dim=1)
        scores = rotate(q, cos, sin) @ k.transpose(-1, -2) * self.shape.head_dim**-0.5 + mask
        mixed = scores.softmax(dim=-1) @ v  # (B, H, T, hd)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to the two halves of each head."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Llama(nn.Module):
    """Embedding, blocks and final norm; the head is the embedding again."""

    def __init__(self, shape: LlamaShape) -> None:
        """Draw the first weights; matrices that write to the residual stream start smaller."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_blocks))
        self.norm = Norm(shape)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("out.weight", "down.weight"))
                std = 0.04 / (2 * shape.n_blocks) ** 0.5 if writes else 0.04
                nn.init.normal_(parameter, std=std)

    def forward(self, ids: Tensor, chosen: Tensor) -> Tensor:
        """Return the logits at the `chosen` positions (a mask) of ids (B, T)."""
        length, dtype = ids.shape[1], self.embedding.weight.dtype
        half = torch.arange(0, self.shape.head_dim, 2) / self.shape.head_dim
        angles = torch.arange(length)[:, None] * self.shape.rope_theta**-half  # (T, hd / 2)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        mask = torch.full((length, length), -1e4, dtype=dtype).triu(1)
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x[chosen]) @ self.embedding.weight.T

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights under the names of Hugging Face's Llama."""
        named = {"model.embed_tokens.weight": self.embedding.weight}
        for index, block in enumerate(self.blocks):
            q, k, v = block.qkv.weight.split(block.sizes)
            gate, up = block.gate_up.weight.chunk(2)
            parts = {
                "self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                "self_attn.o_proj": block.out.weight, "mlp.gate_proj": gate, "mlp.up_proj": up,
                "mlp.down_proj": block.down.weight,
                "input_layernorm": block.attention_norm.weight,
                "post_attention_layernorm": block.mlp_norm.weight,
            }  # fmt: skip
            named |= {f"model.layers.{index}.{part}.weight": w for part, w in parts.items()}
        named["model.norm.weight"] = self.norm.weight
        return {name: tensor.detach().contiguous() for name, tensor in named.items()}
