"""Chat templates for models that come without one, and the vocabularies that betray which.

Each is Jinja in the form that the model's makers published. ChatML comes in three: ``chatml``
writes the turns and nothing else, ``chatml-system`` puts "You are a helpful assistant." before a
conversation without a system text (as Qwen 2; by name only, no vocabulary tells), ``chatml-sep``
has ``<|im_sep|>`` where the others have a line feed (as Phi 4). ``tags`` ends its turns with EOS
(as Zephyr), ``tags-end`` with ``<|end|>`` (as Phi 3). Knows no tokenizer: a vocabulary is whatever
answers ``in``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

__all__ = ["BUILTIN_TEMPLATES", "BuiltinTemplate", "builtin_template", "detect_template"]


def _opening(text: str) -> str:
    """What opens an answer, as Jinja."""
    return "{% if add_generation_prompt %}{{ '" + text + "' }}{% endif %}"


CHATML_TURNS = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}" + _opening("<|im_start|>assistant\\n")
)
CHATML_SYSTEM = (
    "{% if not messages or messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
)
CHATML_SEP = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}" + _opening("<|im_start|>assistant<|im_sep|>")
)
LLAMA_2 = (
    "{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ bos_token }}{{ '[INST] ' + ns.system + message['content'].strip() + ' [/INST]' }}"
    "{% set ns.system = '' %}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}" + _opening("<|start_header_id|>assistant<|end_header_id|>\\n\\n")
)
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] + '\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + ns.system + message['content'] + '[/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' + message['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] | trim + '\\n\\n' %}"
    "{% else %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + ns.system + message['content'] | trim"
    " + '<end_of_turn>\\n' }}{% set ns.system = '' %}{% endif %}"
    "{% endfor %}" + _opening("<start_of_turn>model\\n")
)
ALPACA = (
    "{% set ns = namespace(system='Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.') %}"
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set ns.system = messages[0]['content'] %}{% endif %}{{ ns.system + '\\n\\n' }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] }}{{ eos_token }}{{ '\\n\\n' }}{% endif %}"
    "{% endfor %}" + _opening("### Response:\\n")
)
TAGS = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{{ eos_token }}{{ '\\n' }}{% endfor %}" + _opening("<|assistant|>\\n")
)
TAGS_END = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}" + _opening("<|assistant|>\\n")
)
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ message['content'] + '\\n\\n' }}{% elif message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\\n' }}{% else %}"
    "{{ 'Assistant: ' + message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}" + _opening("Assistant:")
)


@dataclass(frozen=True, slots=True)
class BuiltinTemplate:
    """A chat template with the name that a BlocksMap gives it."""

    name: str
    source: str
    stops: tuple[str, ...]
    """What ends an answer, as text; markers that a vocabulary has as tokens become ids later."""
    tokens: tuple[str, ...] = ()
    """Tokens that all stand in the vocabulary of a model that was made for this template."""
    aliases: tuple[str, ...] = ()


# In order of detection: a template comes before those that need fewer of the same tokens.
BUILTIN_TEMPLATES = (
    BuiltinTemplate("llama3", LLAMA_3, ("<|eot_id|>", "<|end_of_text|>"),
                    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                    ("llama31", "llama32", "llama33", "llama3chat", "llama3instruct")),
    BuiltinTemplate("chatml-sep", CHATML_SEP, ("<|im_end|>", "<|im_start|>"),
                    ("<|im_start|>", "<|im_sep|>", "<|im_end|>"), ("phi4",)),
    BuiltinTemplate("chatml", CHATML_TURNS, ("<|im_end|>", "<|im_start|>"),
                    ("<|im_start|>", "<|im_end|>"), ()),
    BuiltinTemplate("chatml-system", CHATML_SYSTEM + CHATML_TURNS, ("<|im_end|>", "<|im_start|>"),
                    (), ("chatml2", "qwen", "qwen2")),
    BuiltinTemplate("gemma", GEMMA, ("<end_of_turn>", "<start_of_turn>"),
                    ("<start_of_turn>", "<end_of_turn>"), ("gemma2", "gemma3")),
    BuiltinTemplate("mistral", MISTRAL, ("[INST]",), ("[INST]", "[/INST]"),
                    ("mistralinstruct", "mixtral")),
    BuiltinTemplate("tags-end", TAGS_END, ("<|end|>", "<|user|>", "<|system|>"),
                    ("<|user|>", "<|assistant|>", "<|end|>"), ("phi3",)),
    BuiltinTemplate("tags", TAGS, ("<|user|>", "<|system|>", "<|assistant|>"),
                    ("<|user|>", "<|assistant|>"), ("zephyr", "tinyllama")),
    BuiltinTemplate("alpaca", ALPACA, ("### Instruction:", "### Response:"),
                    ("### Instruction:", "### Response:"), ()),
    # Llama 2 has no tokens for its marks: the vocabulary of SentencePiece with bytes is the hint.
    BuiltinTemplate("llama2", LLAMA_2, ("[INST]",), ("<unk>", "<s>", "</s>", "<0x0A>"),
                    ("llama", "llama2chat")),
    BuiltinTemplate("plain", PLAIN, ("\nUser:", "\nAssistant:"), (), ("none", "default", "raw")),
)  # fmt: skip


def builtin_template(name: str) -> BuiltinTemplate | None:
    """The template of that name; case, dashes, dots, spaces and underscores don't matter."""
    wanted = _plain_name(name)
    for template in BUILTIN_TEMPLATES:
        if wanted in (_plain_name(template.name), *template.aliases):
            return template
    return None


def detect_template(vocabulary: Container[str]) -> BuiltinTemplate:
    """The template whose tokens are in ``vocabulary``; ``plain`` if that is none's."""
    for template in BUILTIN_TEMPLATES:
        if template.tokens and all(token in vocabulary for token in template.tokens):
            return template
    return BUILTIN_TEMPLATES[-1]


def _plain_name(name: str) -> str:
    """Letters and digits in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())
