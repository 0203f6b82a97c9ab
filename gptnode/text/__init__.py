"""Text and token ids: tokenizer, chat templates, stop sequences, conversations. No tensors."""
