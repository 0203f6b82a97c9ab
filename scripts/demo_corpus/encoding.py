"""From conversations to token ids: the tokenizer, ChatML, and the batches of the training."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from demo_corpus.dialogues import ANSWERS, Message

END_OF_TEXT, IM_START, IM_END = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
IGNORED = -100  # the label of a token that isn't learned
CUT_CONVERSATIONS, FIRST_WORDS = 0.7, 3
# The lengths of training rows, and how often each is drawn: short rows show starts of
# conversations, long ones far positions.
ROW_LENGTHS, ROW_WEIGHTS = (256, 512, 1024), (0.75, 0.20, 0.05)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE tokenizer; digits stay single, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True)
class Corpus:
    """Conversations one after the other, as token ids, with what is to be learned of them."""

    ids: np.ndarray  # (n_tokens,) int64
    labels: np.ndarray  # (n_tokens,) int64: the id itself in answers, else IGNORED
    starts: np.ndarray  # where each conversation begins in `ids`

    def batch(self, n_tokens: int, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut `n_tokens` in rows of one length, each from the start of a conversation on.

        What is drawn depends on `seed` and `step` alone, so a resumed training goes on as it
        would have. Returns inputs and labels of shape (rows, length), shifted by one.
        """
        rng = np.random.default_rng((seed, step))
        length = int(rng.choice(ROW_LENGTHS, p=ROW_WEIGHTS))
        usable = self.starts[self.starts < len(self.ids) - length]
        rows = rng.choice(usable, n_tokens // length)[:, None] + np.arange(length + 1)
        return self.ids[rows[:, :-1]], self.labels[rows[:, 1:]]


def encode(conversations: list[list[Message]], tokenizer: Tokenizer, seed: int) -> Corpus:
    """Write conversations as ChatML ids; answers and the ends of their turns are learned.

    In many conversations the known answers are cut off somewhere: their first words tell whether
    a question was understood, and the time is better spent on more questions.
    """
    rng = random.Random(seed)
    known = frozenset(ANSWERS.values())
    segments: list[str] = []
    learned: list[bool] = []
    firsts: list[int] = []  # the first segment of each conversation
    for conversation in conversations:
        firsts.append(len(segments))
        is_cut = rng.random() < CUT_CONVERSATIONS
        for message in conversation:
            content, is_answer = message["content"] + IM_END, message["role"] == "assistant"
            if is_cut and is_answer and message["content"] in known:
                words = content.split(" ")
                content = " ".join(words[: rng.randint(FIRST_WORDS, len(words))])
            segments += (f"{IM_START}{message['role']}\n", content, "\n")
            learned += (False, is_answer, False)
        segments.append(END_OF_TEXT)
        learned.append(False)
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(segments)]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    ids = np.concatenate([np.asarray(segment, dtype=np.int64) for segment in encoded])
    labels = np.where(np.repeat(learned, lengths), ids, IGNORED)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Corpus(ids, labels, offsets[firsts])
