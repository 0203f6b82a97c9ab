from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptnode.api.map_desk import MapDesk, Surroundings
from gptnode.errors import MapError
from gptnode.routing.blocks_map import parse_blocks_map
from tests.routing.ids import ANNA, BEN, CLEO, LAPTOP

from .fakes import MAP, MODEL, N_BLOCKS, edited

AROUND = Surroundings(MODEL, N_BLOCKS, LAPTOP, frozenset(), parse_blocks_map(MAP))


@pytest.fixture
def desk(tmp_path: Path) -> MapDesk:
    path = tmp_path / "swarm.json"
    path.write_text(MAP)
    path.chmod(0o640)
    return MapDesk(path)


def without_ben(data: dict[str, Any]) -> None:
    data["peers"] = [peer for peer in data["peers"] if peer["name"] != "ben"]
    data["routes"][1]["peers"] = ["cleo"]


def route_of(desk: MapDesk, text: str, around: Surroundings = AROUND) -> list[tuple[str, int, int]]:
    return [(hop.label, hop.start, hop.stop) for hop in desk.check(text, around).route]


def test_a_right_edit_is_shown_with_its_route_and_who_goes(desk: MapDesk) -> None:
    check = desk.check(edited(without_ben), AROUND)
    assert check.ok
    assert [(hop.label, hop.start, hop.stop) for hop in check.route] == [
        ("anna", 0, 4),
        ("cleo", 4, 8),
    ]
    assert check.changes == ("ben is taken out",)


def test_the_route_avoids_peers_that_are_down_where_it_can(desk: MapDesk) -> None:
    def around(*down: str) -> Surroundings:
        return Surroundings(MODEL, N_BLOCKS, LAPTOP, frozenset(down), AROUND.in_force)

    assert route_of(desk, MAP, around(BEN)) == [("anna", 0, 4), ("cleo", 4, 8)]
    assert route_of(desk, MAP, around(ANNA, BEN, CLEO)) == [("anna", 0, 4), ("ben", 4, 8)]


def test_blocks_that_this_node_serves_itself_are_its_own(desk: MapDesk) -> None:
    around = Surroundings(MODEL, N_BLOCKS, CLEO, frozenset(), AROUND.in_force)
    assert route_of(desk, MAP, around) == [("this node", 0, 8)]


def test_all_problems_are_told_each_with_path_and_line(desk: MapDesk) -> None:
    text = MAP.replace('["anna", "cleo"]', '["anna", "cloe"]').replace('["ben", ', '["bn", ')
    check = desk.check(text, AROUND)
    assert [(one.path, one.line) for one in check.problems] == [
        ("routes[0].peers[1]", 9),
        ("routes[1].peers[0]", 10),
    ]
    assert 'did you mean "cleo"?' in check.problems[0].message
    assert check.route == ()


def test_a_map_of_another_model_or_size_is_no_map_for_this_one(desk: MapDesk) -> None:
    (other,) = desk.check(MAP.replace(f'"{MODEL}"', '"other"'), AROUND).problems
    assert other.path == "models"
    (short,) = desk.check(MAP.replace("4-7", "4-6"), AROUND).problems
    assert "nobody serves block 7" in short.message


def test_replicas_can_be_swapped_where_they_are_written(desk: MapDesk) -> None:
    first, second = desk.check(MAP, AROUND).orders
    assert (first.blocks, [label for label, _ in first.peers]) == ("0-3", ["anna", "cleo"])
    (_, ben), (_, cleo) = second.peers
    swapped = (
        MAP[: ben.start] + MAP[cleo.start : cleo.stop] + MAP[ben.stop : cleo.start]
        + MAP[ben.start : ben.stop] + MAP[cleo.stop :]
    )  # fmt: skip
    assert route_of(desk, swapped) == [("anna", 0, 4), ("cleo", 4, 8)]
    assert swapped.count("\n") == MAP.count("\n")


def test_a_right_edit_is_written_and_mode_and_mark_stay(desk: MapDesk) -> None:
    desk.path.write_bytes(b"\xef\xbb\xbf" + MAP.encode())
    before = desk.read()
    assert before.text == MAP
    outcome = desk.replace(edited(without_ben), [before.tag], AROUND)
    assert outcome.written
    assert desk.path.read_bytes() == b"\xef\xbb\xbf" + edited(without_ben).encode()
    assert desk.path.stat().st_mode & 0o777 == 0o640
    assert desk.read().tag == outcome.now.tag != before.tag
    assert [path.name for path in desk.path.parent.iterdir()] == [desk.path.name]


@pytest.mark.parametrize("text", ["{", MAP.replace("4-7", "4-6")], ids=["no JSON", "a gap"])
def test_a_wrong_edit_is_never_written(desk: MapDesk, text: str) -> None:
    outcome = desk.replace(text, ["*"], AROUND)
    assert not outcome.written
    assert outcome.check.problems
    assert desk.path.read_text() == MAP


def test_an_edit_of_a_text_that_has_changed_is_not_written(desk: MapDesk) -> None:
    tag = desk.read().tag
    desk.path.write_text(MAP + "\n")
    outcome = desk.replace(edited(without_ben), [tag], AROUND)
    assert outcome.conflict
    assert desk.path.read_text() == MAP + "\n"


def test_a_file_that_is_gone_is_an_error_and_stays_gone(desk: MapDesk) -> None:
    desk.path.unlink()
    with pytest.raises(MapError, match="no such file"):
        desk.replace(MAP, ["*"], AROUND)
    assert not desk.path.exists()
