"""Every label set has its cells once, and a full segment says so."""

from pathlib import Path

from flyproxy.instrument.allotment import REFUSED, Allotment
from flyproxy.instrument.catalog import FAMILIES
from flyproxy.instrument.cells import Segment

DATA = (FAMILIES["fly_edge_data_in"],)


def test_the_same_label_set_has_the_same_cells(run_dir: Path) -> None:
    allotment = Allotment(Segment.create(str(run_dir / "edge-0.cells"), 0))
    first = allotment.place(DATA, "personal", {"app": "hello", "region": "ord"})
    assert allotment.place(DATA, "personal", {"region": "ord", "app": "hello"}) == first
    assert allotment.place(DATA, "another", {"app": "hello", "region": "ord"}) == first + 1


def test_it_says_how_much_is_used_and_how_often_it_refused(run_dir: Path) -> None:
    segment = Segment.create(str(run_dir / "edge-0.cells"), 0, cells_max=5)
    allotment = Allotment(segment)
    refused, capacity, used = 0, 1, 2
    assert (segment.cells[refused], segment.cells[capacity], segment.cells[used]) == (0, 5, 3)
    places = [allotment.place(DATA, "personal", {"app": str(number)}) for number in range(4)]
    assert places == [3, 4, REFUSED, REFUSED]
    assert allotment.place(DATA, "personal", {"app": "3"}) == REFUSED
    assert (segment.cells[refused], segment.cells[used]) == (2, 5)


def test_a_segment_without_any_room_harms_nobody(run_dir: Path) -> None:
    allotment = Allotment(Segment.create(str(run_dir / "edge-0.cells"), 0, cells_max=0))
    assert allotment.place(DATA, "personal", {"app": "hello"}) == REFUSED
    allotment.rest()
