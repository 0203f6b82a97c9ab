"""What a node with a quarter of the blocks keeps in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.model.tiny import tiny_config

MIB = 2**20
WIDE = tiny_config(
    vocab_size=8192,
    hidden_size=2048,
    intermediate_size=3584,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    dtype="bfloat16",
)
NODE = """
import json, sys
from pathlib import Path
import psutil, torch
from gptnode.model.config import ModelConfig
from gptnode.model.dtypes import DTYPES
from gptnode.model.parts import load_blocks
from gptnode.model.weights import WeightIndex
from gptnode.span import Span

torch.set_num_threads(1)
folder, span, dtype = Path(sys.argv[1]), Span.parse(sys.argv[2]), sys.argv[3]
resident = psutil.Process().memory_info
imported = resident().rss
config, index = ModelConfig.from_folder(folder), WeightIndex.open(folder)
fingerprint = index.fingerprint(config)
opened = resident().rss
stack = load_blocks(index, config, span, dtype, torch.device("cpu"))
loaded = resident().rss
hidden = torch.ones(1, 8, config.d_model, dtype=DTYPES[dtype])
out = stack(hidden, stack.new_cache(4096))
ran = resident().rss
print(json.dumps({"imported": imported, "opened": opened, "loaded": loaded, "ran": ran}))
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.05 GB in 16 blocks; a few bytes of each tensor are random, the rest are holes."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_text(json.dumps(WIDE))
    d, ff, kv = 2048, 3584, 512
    shapes: dict[str, list[int]] = {
        "model.embed_tokens.weight": [8192, d],
        "model.norm.weight": [d],
    }
    for block in range(16):
        shapes |= {
            f"model.layers.{block}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": [d],
                "self_attn.q_proj": [d, d],
                "self_attn.k_proj": [kv, d],
                "self_attn.v_proj": [kv, d],
                "self_attn.o_proj": [d, d],
                "post_attention_layernorm": [d],
                "mlp.gate_proj": [ff, d],
                "mlp.up_proj": [ff, d],
                "mlp.down_proj": [d, ff],
            }.items()
        }
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as the reference implementation writes it
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        file.truncate(start + end)
        for entry in header.values():
            file.seek(start + entry["data_offsets"][0])
            file.write(b"\x80\x3c" * 64)  # 0.0156
    return folder


def resident_of_node(folder: Path, blocks: str, dtype: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", NODE, str(folder), blocks, dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, int] = json.loads(done.stdout)
    print({name: f"{size / MIB:.0f} MiB" for name, size in measured.items()})
    return measured


@pytest.mark.parametrize("blocks", ["0-3", "12-15"])
def test_a_quarter_of_the_blocks_takes_a_quarter_of_the_memory(
    large_model: Path, blocks: str
) -> None:
    quarter = (large_model / "model.safetensors").stat().st_size // 4
    assert quarter > 255 * MIB
    measured = resident_of_node(large_model, blocks, "bf16")
    assert measured["opened"] - measured["imported"] < 10 * MIB
    assert measured["loaded"] - measured["opened"] < 20 * MIB  # mapped, not read
    assert measured["ran"] < quarter + 350 * MIB
    # It would be no measurement if the blocks were not in it.
    assert measured["ran"] - measured["opened"] > quarter * 0.9


def test_converting_leaves_nothing_of_the_file_in_memory(large_model: Path) -> None:
    quarter = (large_model / "model.safetensors").stat().st_size // 4
    measured = resident_of_node(large_model, "4-7", "f32")
    assert measured["ran"] < 2 * quarter + 350 * MIB
    assert measured["loaded"] - measured["opened"] > 2 * quarter * 0.9
