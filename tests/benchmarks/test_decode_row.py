from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record import Finding
from benchmarks.rows import decode
from benchmarks.sides import Figures
from benchmarks.weights import KV_BYTES_PER_TOKEN, Weights

from .stand_ins import stub_bench

WEIGHT_BYTES = 2_000_000_000
READ = WEIGHT_BYTES + (512 + 32) * KV_BYTES_PER_TOKEN  # the median step of 64 after 512


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is 20 tokens/s, llama.cpp 16, transformers 5."""

    def ours(bench: object, where: object) -> Figures:
        return Figures(300.0, 20.0, weight_bytes=WEIGHT_BYTES)

    def folder(self: Weights, dtype: str) -> Path:
        return self.work / dtype

    monkeypatch.setattr(decode, "gptnode_bench", ours)
    monkeypatch.setattr(decode, "llama_cpp", lambda bench, dtype: Figures(200.0, 16.0))
    monkeypatch.setattr(decode, "transformers", lambda bench: Figures(100.0, 5.0))
    monkeypatch.setattr(Weights, "folder", folder)


def finding(findings: tuple[Finding, ...], words: str) -> Finding:
    (found,) = (each for each in findings if words in each.name)
    return found


@pytest.mark.usefixtures("sides")
def test_bf16_is_compared_with_both_rivals_and_with_the_limit(tmp_path: Path) -> None:
    bandwidth = 25.0 * READ
    bench = stub_bench(tmp_path, *[bandwidth] * 4)
    outcome = decode.DECODE[0].measure(bench)
    assert finding(outcome.findings, "llama.cpp BF16").values == pytest.approx((1.25, 1.25))
    assert finding(outcome.findings, "transformers").values == pytest.approx((4.0, 4.0))
    limit = finding(outcome.findings, "limit")
    assert limit.values == pytest.approx((0.8, 0.8))
    assert limit.met is False


@pytest.mark.usefixtures("sides")
@pytest.mark.parametrize(("index", "kind"), [(1, "Q8_0"), (2, "Q4_0")])
def test_quantised_weights_are_compared_with_llama_cpp_in_its_form(
    index: int, kind: str, tmp_path: Path
) -> None:
    outcome = decode.DECODE[index].measure(stub_bench(tmp_path, *[1e9] * 4))
    assert finding(outcome.findings, kind).target is not None
    assert finding(outcome.findings, "limit").target is None
    assert not [each for each in outcome.series if "transformers" in each.name]
