"""A tiny random Llama in Hugging Face form; its tokenizer is the caller's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D_MODEL = 32


def write_tiny_llama(
    folder: Path,
    vocab_size: int,
    *,
    n_blocks: int = 4,
    bos_id: int | None = None,
    eos_id: int | None = None,
    max_positions: int = 1024,
    seed: int = 0,
) -> Path:
    """config.json and model.safetensors in f32, made if the folder isn't there."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    d_ff, kv_width = 48, 16
    tensors = {
        "model.embed_tokens.weight": random(vocab_size, D_MODEL),
        "model.norm.weight": torch.ones(D_MODEL),
        "lm_head.weight": random(vocab_size, D_MODEL),
    }
    for block in range(n_blocks):
        prefix = f"model.layers.{block}."
        tensors |= {
            prefix + "input_layernorm.weight": torch.ones(D_MODEL),
            prefix + "post_attention_layernorm.weight": torch.ones(D_MODEL),
            prefix + "self_attn.q_proj.weight": random(D_MODEL, D_MODEL),
            prefix + "self_attn.k_proj.weight": random(kv_width, D_MODEL),
            prefix + "self_attn.v_proj.weight": random(kv_width, D_MODEL),
            prefix + "self_attn.o_proj.weight": random(D_MODEL, D_MODEL),
            prefix + "mlp.gate_proj.weight": random(d_ff, D_MODEL),
            prefix + "mlp.up_proj.weight": random(d_ff, D_MODEL),
            prefix + "mlp.down_proj.weight": random(D_MODEL, d_ff),
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": D_MODEL,
        "intermediate_size": d_ff,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_truncated(folder: Path, out: Path, n_blocks: int) -> Path:
    """A copy of the model in ``folder`` with its first ``n_blocks`` blocks and its tokenizer."""
    out.mkdir(parents=True)
    tensors = {
        name: tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if ".layers." not in name or int(name.split(".")[2]) < n_blocks
    }
    save_file(tensors, out / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": n_blocks}
    (out / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():
            (out / name).write_bytes((folder / name).read_bytes())
    return out
