"""gptnode: run one language model on several ordinary machines, block by block."""

__version__ = "0.1.0"
