"""A fixture for tests that set logs up: they change what the whole process logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

__all__ = ["logging_as_before"]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Takes back what `set_up_logs` changes."""
    root, libp2p = logging.getLogger(), logging.getLogger("libp2p")
    before = root.handlers[:], root.level, libp2p.handlers[:], libp2p.propagate
    yield
    root.handlers[:], root.level, libp2p.handlers[:], libp2p.propagate = before
    structlog.reset_defaults()
