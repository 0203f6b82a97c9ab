from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.record import Target
from benchmarks.report import BEGIN, END, insert, markdown, write
from gptnode.errors import GptNodeError

from .samples import sample_record

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"


def test_the_targets_come_first_with_median_ends_and_verdict() -> None:
    text = markdown([sample_record()])
    row = "| decode-bf16 | decode / theirs | x | 1.10 | 1.00 | 1.30 | >= 1.05 | met |"
    assert row in text.partition("### decode-bf16")[0]


def test_a_missed_target_is_called_so() -> None:
    assert "| >= 1.2 | missed |" in markdown([sample_record(target=Target(1.2))])


def test_findings_without_a_target_stand_with_their_row_only() -> None:
    before, _, after = markdown([sample_record(target=None)]).partition("### decode-bf16")
    assert "decode / theirs" not in before
    assert "| **decode / theirs** | x | 1.10 | 1.00 | 1.30 |" in after


def test_a_row_tells_its_series_its_settings_and_its_notes() -> None:
    text = markdown([sample_record()])
    assert "| gptnode bf16 | tokens/s | 22.0 | 20.0 | 26.0 |" in text
    assert "3 rounds; 512 tokens of prompt, 64 decoded; 2 threads." in text
    assert "A note." in text


def test_machine_versions_and_date_are_named_for_each_row() -> None:
    origin = markdown([sample_record()]).partition("### Machines and versions")[2]
    for word in ("2020-01-02", "0.1.0 (abc)", "llama-cpp-python 0.3", "A CPU", "8 GiB", "Linux"):
        assert word in origin


def test_every_line_of_a_table_has_as_many_cells_as_its_head() -> None:
    records = [sample_record(), sample_record("b|c", notes=())]
    widths: list[int] = []
    for line in markdown(records).splitlines():
        if not line.startswith("|"):
            widths.clear()
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert widths[-1] == widths[0], line


def test_a_picture_stands_with_its_row() -> None:
    text = markdown([sample_record(), sample_record("other")], [("other", "x/other.svg")])
    assert text.index("### other") < text.index("![other](x/other.svg)")
    assert text.count("![") == 1


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = insert(page, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"
    assert insert(once, "new") == once


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_page_without_both_markers_is_left_alone(page: str, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(GptNodeError, match="no lines"):
        write(path, [sample_record()], [])
    assert path.read_text() == page


def test_the_page_in_the_documentation_has_the_markers() -> None:
    assert "### decode-bf16" in insert(PAGE.read_text(), markdown([sample_record()]))
