"""Llama models cut into spans of blocks: configuration, weights, layers, KV cache, sampling.

Torch lives here. Nothing in this package knows of peers, streams or text: ids and hidden states
go in, hidden states, logits and ids come out.
"""
