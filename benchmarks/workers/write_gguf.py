"""write_gguf.py DIR OUT: a Llama folder's bf16 weights as OUT/{bf16,q8_0,q4_0}.gguf.

Runs in the rivals' environment. Quantising is llama.cpp's own. The vocabulary is made up, since
nothing here makes text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf  # type: ignore[import-not-found]
import llama_cpp  # type: ignore[import-not-found]
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

BYTE_TOKENS = 256
CONTROL = (b"<unk>", b"<s>", b"</s>")
MATRICES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def half_split_to_pairs(weight: NDArray[np.uint16], n_heads: int) -> NDArray[np.uint16]:
    """The rows (N, K) of queries or keys in the order of llama.cpp's rotation.

    Hugging Face turns channel i of a head with channel i + half, llama.cpp 2i with 2i + 1.
    """
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_bf16(folder: Path, out: Path) -> None:
    """The weights as they are."""
    config = json.loads((folder / "config.json").read_text())
    n_blocks, vocab = config["num_hidden_layers"], config["vocab_size"]
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(n_blocks)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(vocab)
    add_vocabulary(writer, vocab)
    with safe_open(folder / "model.safetensors", "pt") as source:

        def add_matrix(name: str, theirs: str) -> None:
            bits = source.get_tensor(theirs).view(torch.uint16).numpy()
            n_heads = heads.get(name.split(".")[-2])
            if n_heads is not None:
                bits = half_split_to_pairs(bits, n_heads)
            rows = np.ascontiguousarray(bits).view(np.uint8)
            writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType.BF16)

        def add_norm(name: str, theirs: str) -> None:
            writer.add_tensor(name, source.get_tensor(theirs).float().numpy())

        add_matrix("token_embd.weight", "model.embed_tokens.weight")
        add_norm("output_norm.weight", "model.norm.weight")
        for block in range(n_blocks):
            for name, theirs in NORMS.items():
                add_norm(f"blk.{block}.{name}.weight", f"model.layers.{block}.{theirs}.weight")
            for name, theirs in MATRICES.items():
                add_matrix(f"blk.{block}.{name}.weight", f"model.layers.{block}.{theirs}.weight")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Tokens that llama.cpp accepts."""
    n_words = size - len(CONTROL) - BYTE_TOKENS
    octets = [f"<0x{octet:02X}>".encode() for octet in range(BYTE_TOKENS)]
    words = [f"t{word}".encode() for word in range(n_words)]
    unknown, control, octet, normal = 2, 3, 6, 1
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*CONTROL, *octets, *words])
    writer.add_token_scores([0.0] * size)
    kinds = [unknown, control, control, *[octet] * BYTE_TOKENS, *[normal] * n_words]
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def main() -> None:
    """Write all three; each gets its name when it is whole."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    partial = out / "partial.gguf"
    write_bf16(folder, partial)
    whole = partial.rename(out / "bf16.gguf")
    kinds = (
        ("q8_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0),
        ("q4_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0),
    )
    for name, kind in kinds:
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype = kind
        if llama_cpp.llama_model_quantize(str(whole).encode(), str(partial).encode(), settings):
            raise SystemExit(f"llama.cpp can't quantise to {name}")
        partial.rename(out / f"{name}.gguf")
    print(json.dumps({"written": [path.name for path in sorted(out.glob("*.gguf"))]}))


if __name__ == "__main__":
    main()
