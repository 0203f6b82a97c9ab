"""Train the bundled demo model: a small Llama on text that this repository writes.

The corpus, the order of its batches and the first weights come from `--seed`. A training that
is interrupted goes on from its last checkpoint; `--fresh` starts anew.
"""

import copy
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from demo_corpus.dialogues import Message, dialogues, held_out, normalised
from demo_corpus.encoding import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    IGNORED,
    IM_END,
    encode,
    train_tokenizer,
)
from demo_llama import Llama, LlamaShape
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
MODEL_DIR = ROOT / "gptnode" / "demo" / "model"
CHECKPOINT_DIR = ROOT / ".cache" / "demo-training"

VOCAB_SIZE = 2048
CONVERSATIONS = 160_000
TOKENIZER_CONVERSATIONS = 30_000
TOKENS_PER_STEP = 3072
PEAK_LEARNING_RATE = 1.5e-3
WARM_UP_STEPS = 100
DECAY_FROM = 0.6  # the part of the budget after which the learning rate falls to zero
CHECKPOINT_EVERY_S = 150
REPORT_EVERY_S = 30

EXAMPLES = """
\b
Examples:
  python scripts/train_demo_model.py                  train, or go on with a training
  python scripts/train_demo_model.py --fresh --minutes 60
  python scripts/train_demo_model.py --export-only    write the last checkpoint as a model
"""


@dataclass
class Progressed:
    """How far a training has come."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.nan  # a moving average

    def add(self, loss: float, tokens: int, seconds: float) -> None:
        """Count one step."""
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss


@dataclass(frozen=True)
class Budget:
    """When a training is done: after so many steps, or after so many minutes of training."""

    steps: int
    minutes: float | None

    def spent(self, done: Progressed) -> float:
        """Return the part of the budget that is used up, from 0 to 1."""
        if self.minutes is None:
            return min(1.0, done.step / self.steps)
        return min(1.0, done.seconds / 60 / self.minutes)


def learning_rate(step: int, spent: float) -> float:
    """Warm up, stay, and fall linearly to zero."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    decay = min(1.0, (1.0 - spent) / (1.0 - DECAY_FROM))
    return PEAK_LEARNING_RATE * warm_up * max(decay, 0.01)


def written_corpus(seed: int) -> list[list[Message]]:
    """Write the training text, and make sure that no held-out question is in it."""
    conversations = list(dialogues(CONVERSATIONS, seed))
    asked = {
        normalised(message["content"])
        for conversation in conversations
        for message in conversation
        if message["role"] == "user"
    }
    leaked = [entry["question"] for entry in held_out() if normalised(entry["question"]) in asked]
    if leaked:
        raise click.ClickException(f"held-out questions in the training text: {leaked}")
    print(f"corpus: {len(conversations)} conversations, {len(asked)} different questions")
    return conversations


class Trainee:
    """A model that computes in bf16, and the f32 weights that its optimizer keeps."""

    def __init__(self, shape: LlamaShape) -> None:
        """Draw the first weights."""
        self.master = Llama(shape)
        self.model = copy.deepcopy(self.master).to(torch.bfloat16)
        inner = [p for p in self.master.blocks.parameters() if p.ndim == 2]
        others = [p for p in self.master.parameters() if all(p is not q for q in inner)]
        self.optimizers = (
            torch.optim.Muon(inner, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )

    def learn(self, inputs: Tensor, labels: Tensor, rate: float) -> float:
        """Take one step and return the loss, over the tokens of answers only."""
        learned = labels != IGNORED
        loss = F.cross_entropy(self.model(inputs, learned).float(), labels[learned])
        loss.backward()
        for slow, fast in zip(self.master.parameters(), self.model.parameters(), strict=True):
            slow.grad = fast.grad.float()
            fast.grad = None
        torch.nn.utils.clip_grad_norm_(self.master.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self._copy_from_master()
        return loss.item()

    def save(self, file: Path, done: Progressed) -> None:
        """Write a checkpoint; an old one is replaced only by a whole one."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"model": self.master.state_dict(), "optimizers": optimizers}
        unfinished = file.with_suffix(".tmp")
        torch.save(state | asdict(done), unfinished)
        unfinished.replace(file)

    def load(self, file: Path) -> Progressed:
        """Restore a checkpoint."""
        state = torch.load(file, weights_only=True)
        self.master.load_state_dict(state.pop("model"))
        saved = state.pop("optimizers")
        for optimizer, optimizer_state in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(optimizer_state)
        self._copy_from_master()
        return Progressed(**state)

    @torch.no_grad()
    def _copy_from_master(self) -> None:
        for slow, fast in zip(self.master.parameters(), self.model.parameters(), strict=True):
            fast.copy_(slow)


class Reporter:
    """Shows the progress of a training: a bar in a terminal, else a line now and then."""

    def __init__(self, budget: Budget) -> None:
        """Show the progress towards `budget`."""
        self._budget = budget
        self._last_report = -math.inf
        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            disable=not Console().is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0, step=0, loss=0.0, speed=0.0)

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def show(self, done: Progressed) -> None:
        """Show how far the training is."""
        speed = done.tokens / max(done.seconds, 1e-9)
        spent = self._budget.spent(done)
        self._bar.update(self._task, completed=spent, step=done.step, loss=done.loss, speed=speed)
        if self._bar.disable and time.monotonic() - self._last_report > REPORT_EVERY_S:
            self._last_report = time.monotonic()
            left = done.seconds / max(spent, 1e-9) * (1 - spent) / 60
            print(
                f"step {done.step}  loss {done.loss:.4f}  {speed:,.0f} tokens/s  "
                f"{done.seconds / 60:.1f} min, {left:.1f} min left",
                flush=True,
            )


def export(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face model folder in place of `folder`."""
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shape = model.shape
    special_ids = {
        "eos_token_id": tokenizer.token_to_id(IM_END),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }
    settings = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.n_blocks,
            "num_attention_heads": shape.n_heads,
            "num_key_value_heads": shape.n_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": shape.max_positions,
            "rms_norm_eps": shape.rms_norm_eps,
            "rope_theta": shape.rope_theta,
            "rope_scaling": None,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "bos_token_id": None,
            **special_ids,
        },
        "generation_config.json": {**special_ids, "do_sample": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.max_positions,
            "bos_token": None,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, content in settings.items():
        text = json.dumps(content, indent=2) + "\n"
        (unfinished / name).write_text(text, encoding="utf-8")
    tokenizer.save(str(unfinished / "tokenizer.json"))
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.tensors().items()}
    weights = unfinished / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    print(f"wrote {folder}")


@click.command(epilog=EXAMPLES)
@click.option("--out", type=click.Path(path_type=Path), default=MODEL_DIR, help="Model folder.")
@click.option("--checkpoints", type=click.Path(path_type=Path), default=CHECKPOINT_DIR)
@click.option("--steps", default=6200, show_default=True, help="Length of the training.")
@click.option("--minutes", type=float, help="Length of the training in minutes, not in steps.")
@click.option("--seed", default=0, show_default=True, help="For text, batches and weights.")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="CPU threads.")
@click.option("--fresh", is_flag=True, help="Start anew even if there is a checkpoint.")
@click.option(
    "--export-only", is_flag=True, help="Write the last checkpoint as a model; no training."
)
def main(
    out: Path, checkpoints: Path, steps: int, minutes: float | None, seed: int, threads: int,
    fresh: bool, export_only: bool,
) -> None:  # fmt: skip
    """Train the bundled demo model, from its last checkpoint on if there is one."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    checkpoints.mkdir(parents=True, exist_ok=True)
    tokenizer_file, checkpoint = checkpoints / "tokenizer.json", checkpoints / "checkpoint.pt"
    resumed = not fresh and checkpoint.exists()

    if export_only:
        if not resumed:
            raise click.ClickException(f"there is no checkpoint in {checkpoints}")
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        trainee = Trainee(LlamaShape(tokenizer.get_vocab_size()))
        trainee.load(checkpoint)
        export(trainee.model, tokenizer, out)
        return

    conversations = written_corpus(seed)
    if resumed:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    else:
        sample = conversations[:TOKENIZER_CONVERSATIONS]
        texts = (message["content"] for conversation in sample for message in conversation)
        tokenizer = train_tokenizer(texts, VOCAB_SIZE)
        tokenizer.save(str(tokenizer_file))
    corpus = encode(conversations, tokenizer, seed)
    print(f"corpus: {len(corpus.ids):,} tokens", flush=True)

    trainee = Trainee(LlamaShape(tokenizer.get_vocab_size()))
    done = trainee.load(checkpoint) if resumed else Progressed()
    budget = Budget(steps, minutes)
    saved_at = time.monotonic()
    with Reporter(budget) as reporter:
        while (spent := budget.spent(done)) < 1.0:
            started = time.monotonic()
            inputs, labels = map(torch.from_numpy, corpus.batch(TOKENS_PER_STEP, seed, done.step))
            loss = trainee.learn(inputs, labels, learning_rate(done.step, spent))
            done.add(loss, inputs.numel(), time.monotonic() - started)
            reporter.show(done)
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                trainee.save(checkpoint, done)
                saved_at = time.monotonic()
    trainee.save(checkpoint, done)
    print(
        f"trained {done.step} steps on {done.tokens:,} tokens in {done.seconds / 60:.1f} min, "
        f"loss {done.loss:.4f}"
    )
    export(trainee.model, tokenizer, out)


if __name__ == "__main__":
    sys.exit(main())
