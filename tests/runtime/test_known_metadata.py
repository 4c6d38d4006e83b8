"""What is known about an organization's metrics."""

from flyproxy.instrument.catalog import OPERATOR
from flyproxy.runtime.known_metadata import known_metadata
from flyproxy.series.metadata import Metadata

OWN = Metadata("gauge", "What the app says.", "")


def test_an_organization_has_flys_families_and_its_apps() -> None:
    known = known_metadata("personal", {"own": OWN}, has_targets=False)
    assert known["own"] == OWN
    assert known["fly_edge_http_responses_count"].type == "counter"
    assert known["fly_edge_http_response_time_seconds"].unit == "seconds"
    assert not [name for name in known if name.startswith(("flyproxy_", "process_"))]
    assert "up" not in known


def test_the_report_of_a_scrape_is_described_where_something_is_scraped() -> None:
    assert {"up", "scrape_samples_scraped"} <= set(known_metadata("personal", {}, has_targets=True))


def test_the_front_doors_own_are_the_operators() -> None:
    assert "flyproxy_queries_total" in known_metadata(OPERATOR, {}, has_targets=False)


def test_an_app_does_not_describe_our_names() -> None:
    known = known_metadata("personal", {"up": OWN, "fly_edge_data_out": OWN}, has_targets=True)
    assert OWN not in (known["up"], known["fly_edge_data_out"])
