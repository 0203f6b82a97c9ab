"""Every test of the kernels runs on this machine's instructions and on plain C."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gptnode.model.native import binding


@pytest.fixture(params=["special", "plain"], autouse=True)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Skips nothing but machines on which the kernels weren't compiled at all."""
    if not binding.available:
        pytest.skip("the kernels aren't compiled here")
    binding.use_plain(request.param == "plain")
    yield str(request.param)
    binding.use_plain(False)
