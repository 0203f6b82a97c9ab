"""The OpenAI-compatible HTTP interface to a service: HTTP and JSON here, models and peers below."""
