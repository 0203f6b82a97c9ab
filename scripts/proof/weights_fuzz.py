"""Damaged model folders, each opened and loaded in a process of its own.

What has to come out is a clear error (one of gptnode's, which names the folder) or just the tensors
that the safetensors library reads from the same bytes. A signal, another exception, tensors that
differ, or 20 seconds are failures.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file

from gptnode.errors import MismatchError, ModelError, UsageError
from gptnode.model.mapping import map_tensor
from gptnode.model.quantised_folder import quantise_folder
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.span import Span
from proof.damage import DAMAGES
from tests.tiny_llama import write_tiny_llama

__all__ = ["WeightsFuzz", "fuzz_weights"]

DEADLINE_S = 20
MEMORY_BYTES = 4 << 30
LATE = "shortened after opening"
CLEAR = (ModelError, UsageError, MismatchError)


@dataclass
class WeightsFuzz:
    """``outcomes``: damage -> outcome -> how often. ``failures`` should be none."""

    seed: int
    variants: int = 0
    outcomes: dict[str, dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether each gave a clear error or exact tensors."""
        return self.variants > 0 and not self.failures


def fuzz_weights(
    seed: int, variants: int, *, only: int | None = None, report: Callable[[str], None]
) -> WeightsFuzz:
    """Damage a folder ``variants`` times anew; see the module's docstring."""
    found = WeightsFuzz(seed)
    torch.set_num_threads(1)  # children are forked: no other thread may be
    with tempfile.TemporaryDirectory(prefix="gptnode-fuzz-") as name:
        bases = _write_bases(Path(name))
        for base in bases:
            outcome, detail = _examined_apart(base, late=False, rng=random.Random(0))
            if outcome != "exact":
                raise RuntimeError(f"undamaged {base.name} gave {outcome}: {detail}")
        numbers = range(variants) if only is None else [only]
        for number in numbers:
            rng = random.Random(f"{seed}/{number}")
            base = rng.choice(bases)
            kind = rng.choice([*DAMAGES, LATE])
            folder = Path(name) / "damaged"
            shutil.copytree(base, folder)
            if kind != LATE:
                DAMAGES[kind](rng, folder)
            outcome, detail = _examined_apart(folder, late=kind == LATE, rng=rng)
            shutil.rmtree(folder)
            found.variants += 1
            found.outcomes[kind][outcome] += 1
            line = f"seed {seed}, variant {number}, {kind} in {base.name}: {outcome} {detail}"
            if outcome not in ("exact", "clear error"):
                found.failures.append(line)
            if only is not None:
                report(line)
    found.outcomes = {kind: dict(counts) for kind, counts in found.outcomes.items()}
    return found


def _write_bases(folder: Path) -> list[Path]:
    """Right models: f32 in one file, bf16 in two shards, both sorts of quantised."""
    one = write_tiny_llama(folder / "f32", 64, n_blocks=2)
    tensors = {name: t.bfloat16() for name, t in load_file(one / "model.safetensors").items()}
    shards = folder / "bf16-shards"
    shards.mkdir()
    config = json.loads((one / "config.json").read_text()) | {"torch_dtype": "bfloat16"}
    (shards / "config.json").write_text(json.dumps(config))
    weight_map = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, shards / file)
        weight_map |= dict.fromkeys(names, file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for dtype in ("int8", "int4"):
        quantise_folder(one, folder / dtype, dtype, lambda done, total: None)
    quantise_folder(shards, folder / "int4-shards", "int4", lambda done, total: None)
    return [one, shards, folder / "int8", folder / "int4", folder / "int4-shards"]


def _examined_apart(folder: Path, *, late: bool, rng: random.Random) -> tuple[str, str]:
    """Outcome and detail of `_examined` in a child, which may die or hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _bound_child()
            answer = _examined(folder, late=late, rng=rng)
        except BaseException as error:
            answer = ("unclear error", f"{type(error).__name__}: {str(error)[:300]}")
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    said = b""
    with os.fdopen(reading, "rb") as answers:
        while select.select([answers], [], [], DEADLINE_S)[0]:
            piece = os.read(answers.fileno(), 65536)
            if not piece:
                break
            said += piece
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang", f"no answer in {DEADLINE_S} s"
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        return "crash", signal.Signals(-status).name if status < 0 else f"exit code {status}"
    outcome, detail = json.loads(said)
    return outcome, detail


def _bound_child() -> None:
    """A child that takes all memory takes the machine's; no core files."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES, in_use + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _examined(folder: Path, *, late: bool, rng: random.Random) -> tuple[str, str]:
    """Open the folder as a server does, load all of it, compare with the reference reader."""
    try:
        source = open_model("fuzzed", folder_paths(folder), None, open_device("cpu"))
        if late:
            file = rng.choice(sorted(folder.glob("*.safetensors")))
            os.truncate(file, rng.randrange(file.stat().st_size))
        parts = _load_all(source)
        ours = {
            entry.name: (entry.dtype, list(entry.shape), _bytes(map_tensor(entry)))
            for entry in source.index.entries.values()
        }
    except CLEAR as error:
        if not late and str(folder) not in error.detail:
            return "unclear error", f"names no file: {error.detail}"
        return "clear error", f"{type(error).__name__}: {error.detail}"
    if late and not parts:
        return "unclear error", "nothing was loaded"
    theirs = {}
    for file in {entry.file for entry in source.index.entries.values()}:
        for name, tensor in safetensors.deserialize(file.read_bytes()):
            theirs[name] = (tensor["dtype"], list(tensor["shape"]), bytes(tensor["data"]))
    differing = [name for name, tensor in ours.items() if theirs.get(name) != tensor]
    if differing:
        return "other tensors", ", ".join(differing[:3])
    return "exact", ""


def _load_all(source: ModelSource) -> list[object]:
    embedding = source.load_embedding()
    blocks = source.load_blocks(Span(0, source.config.n_blocks))
    return [embedding, blocks, source.load_head(embedding)]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
