"""The model that all sides run: random weights in the shape of Llama 3.2 1B, in every form.

Nothing is downloaded: speed doesn't depend on what the weights say. Forms are made when a row first
needs them and kept in the work folder (about 10 GB); each gets its name once it is whole.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import run, run_json

__all__ = ["CONFIG", "DTYPES", "GGUF_KINDS", "KV_BYTES_PER_TOKEN", "Weights", "block_bytes"]

HERE = Path(__file__).resolve().parent
DTYPES = ("bf16", "int8", "int4")
GGUF_KINDS: Mapping[str, str] = {"bf16": "bf16", "int8": "q8_0", "int4": "q4_0"}
"""llama.cpp's form of what gptnode calls by its dtype."""

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
}
KV_BYTES_PER_TOKEN: int = (
    2 * CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"] * CONFIG["head_dim"] * 2
)
"""Keys and values of one token in all blocks, in bf16, which all three dtypes of ours use."""
SEED = 0
DEVIATION = 0.02


@dataclass(frozen=True, slots=True)
class Weights:
    """The forms of the model below ``work``; ``rivals_python`` writes those of llama.cpp."""

    work: Path
    rivals_python: Path
    report: Callable[[str], None]

    def folder(self, dtype: str) -> Path:
        """The safetensors folder whose weights are bf16, int8 or int4.

        Raises:
            GptNodeError: it can't be made.
        """
        folder = self.work / f"model-{dtype}"
        if not (folder / "config.json").exists():
            self.report(f"writing the model in {dtype} ...")
            partial = self.work / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            if dtype == "bf16":
                _write_random(partial)
            else:
                command = (sys.executable, "-m", "gptnode", "quantize", self.folder("bf16"))
                run([*command, partial, "--dtype", dtype])
            partial.rename(folder)
        return folder

    def gguf(self, dtype: str) -> Path:
        """llama.cpp's file of that dtype.

        Raises:
            GptNodeError: it can't be made.
        """
        path = self.work / "gguf" / f"{GGUF_KINDS[dtype]}.gguf"
        if not path.exists():
            source = self.folder("bf16")
            self.report("writing the model as GGUF files ...")
            path.parent.mkdir(exist_ok=True)
            run_json([self.rivals_python, HERE / "workers/write_gguf.py", source, path.parent])
        return path

    def all_forms(self) -> None:
        """Make whatever isn't there."""
        for dtype in DTYPES:
            self.folder(dtype)
            self.gguf(dtype)


def block_bytes(folder: Path) -> int:
    """Bytes of all tensors of Transformer blocks in ``folder``, as its files' headers say."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        spans = [each["data_offsets"] for name, each in header.items() if ".layers." in f".{name}"]
        total += sum(stop - start for start, stop in spans)
    return total


def _write_random(folder: Path) -> None:
    """config.json and model.safetensors; always the same bits."""
    import torch  # takes seconds, and most commands find the files written
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(SEED)

    def random(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * DEVIATION).bfloat16()

    width, d_ff = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    kv_width = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    tensors = {
        "model.embed_tokens.weight": random(CONFIG["vocab_size"], width),
        "model.norm.weight": torch.ones(width, dtype=torch.bfloat16),
    }
    for block in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = torch.ones(width, dtype=torch.bfloat16)
        for name, rows, columns in (
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", kv_width, width),
            ("self_attn.v_proj", kv_width, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", d_ff, width),
            ("mlp.up_proj", d_ff, width),
            ("mlp.down_proj", width, d_ff),
        ):
            tensors[f"{prefix}{name}.weight"] = random(rows, columns)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
