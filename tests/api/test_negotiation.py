"""When /metrics is compressed."""

import pytest

from flyproxy.api.negotiation import accepts_gzip


@pytest.mark.parametrize(
    ("accept_encoding", "compressed"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0, *", False),
        ("*", True),
        ("br", False),
        ("gzip;q=nonsense", False),
        ("gzip;q=2", False),
        (",;,", False),
        ("identity;q=1, *;q=0", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(accept_encoding: str, compressed: bool) -> None:
    assert accepts_gzip(accept_encoding) is compressed
