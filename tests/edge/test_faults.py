import json
from pathlib import Path

import pytest

from flyproxy.edge import faults


def test_every_code_is_given_once_and_has_its_own_words() -> None:
    given = [value for value in vars(faults).values() if isinstance(value, faults.Fault)]
    assert len(given) == len(faults.FAULTS) == len({fault.code for fault in given})
    assert len({fault.sentence for fault in given}) == len(given)


@pytest.mark.parametrize("status", [400, 413, 414, 417, 421, 431, 501, 505])
def test_a_refused_head_has_a_fault_of_its_status(status: int) -> None:
    fault = faults.fault_of_status(status)
    assert fault.status == status
    assert fault.blame is faults.Blame.CLIENT


def test_programs_get_json_with_code_reason_and_request_id() -> None:
    kind, page = faults.body(faults.NO_INSTANCE, reason="r", request_id="01X-ord", html=False)
    assert kind == b"application/json"
    assert json.loads(page)["error"] == {
        "code": "PR01",
        "status": 503,
        "message": faults.NO_INSTANCE.sentence,
        "request_id": "01X-ord",
        "reason": "r",
    }


def test_browsers_get_a_page_and_nothing_in_it_is_taken_for_markup() -> None:
    assert faults.wants_html([b"Host: x", b"accept: text/html,application/xhtml+xml"])
    assert not faults.wants_html([b"Accept: */*", b"X-Accept: text/html"])
    kind, page = faults.body(faults.MALFORMED, reason="<script>", request_id="01X", html=True)
    assert kind.startswith(b"text/html")
    assert b"<script>" not in page
    assert b"PP01" in page
    assert b"01X" in page


def test_the_documented_codes_are_these() -> None:
    documented = Path(__file__).parents[2] / "docs" / "faults.md"
    assert documented.read_text() == faults.markdown()
