"""One header line, looked at alone."""

import pytest

from flyproxy.http1 import fields
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.fields import FORWARDED, Field, FieldReader
from flyproxy.http1.limits import HeadLimits

OWNED = frozenset((b"x-forwarded-for", b"fly-client-ip", b"via"))
REQUESTS = FieldReader(HeadLimits(line_bytes=100), OWNED, request=True)
ANSWERS = FieldReader(HeadLimits(line_bytes=100), frozenset(), request=False)


@pytest.mark.parametrize("line", [b"Accept: */*", b"Cookie: a=b", b"X-Odd_Name: 1", b"Trailer: X", b"Date:", b"A!: b"])
def test_an_everyday_line_goes_on(line: bytes) -> None:
    assert REQUESTS.read(line)[0] is FORWARDED


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"hOsT: a", fields.HOST),
        (b"Connection: close", fields.CONNECTION),
        (b"Content-Length: 1", fields.CONTENT_LENGTH_KIND),
        (b"Transfer-Encoding: chunked", fields.TRANSFER_ENCODING),
        (b"Upgrade: websocket", fields.UPGRADE),
        (b"Expect: 100-continue", fields.EXPECT),
        (b"TE: trailers", fields.TE),
        (b"VIA: 1.1 x", fields.OWNED),
        (b"Keep-Alive: 5", fields.DROP),
        (b"Proxy-Connection: close", fields.DROP),
        (b"Proxy-Authorization: x", fields.DROP),
        (b"HTTP2-Settings: x", fields.DROP),
        (b"fly_client_ip: 1.2.3.4", fields.DROP),
        (b"Fly.Client.IP: 1.2.3.4", fields.DROP),
    ],
)
def test_a_line_that_does_not_simply_go_on_has_its_kind(line: bytes, kind: int) -> None:
    field, name = REQUESTS.read(line)
    assert (field.kind, field.line, name) == (kind, line, line.partition(b":")[0].lower())


@pytest.mark.parametrize("line", [b"Host: a b", b"Expect: cookies", b"Via: 1.1 x", b"X_Forwarded_For: 1.2.3.4"])
def test_an_answer_has_no_request_headers(line: bytes) -> None:
    assert ANSWERS.read(line)[0] is FORWARDED


def test_an_owned_name_never_hides_framing() -> None:
    reader = FieldReader(HeadLimits(), frozenset((b"content-length", b"connection", b"host")), request=True)
    kinds = [reader.read(line)[0].kind for line in (b"Content-Length: 1", b"Connection: close", b"Host: a")]
    assert kinds == [fields.CONTENT_LENGTH_KIND, fields.CONNECTION, fields.HOST]


def test_connection_words_are_read_in_any_case_and_empty_ones_ignored() -> None:
    field = REQUESTS.read(b"Connection: ,KEEP-alive , ,Upgrade,X-One,te,x-one,")[0]
    assert field.number == fields.KEEP_ALIVE | fields.UPGRADES
    assert field.names == {b"x-one"}


@pytest.mark.parametrize("name", [*sorted(OWNED), b"content-length", b"Transfer-Encoding", b"HOST", b"expect"])
def test_connection_cannot_remove_framing_or_what_is_owned(name: bytes) -> None:
    with pytest.raises(HttpFault) as refused:
        REQUESTS.read(b"Connection: " + name)
    assert refused.value.status == 400


def test_an_answer_may_offer_h2c() -> None:
    assert ANSWERS.read(b"Upgrade: h2,H2C")[0].meaning == b"h2, h2c"


def test_a_line_at_the_bound_is_read_and_one_beyond_it_is_a_431() -> None:
    assert REQUESTS.read(b"A: " + b"b" * 97)[0] is FORWARDED
    with pytest.raises(HttpFault) as refused:
        REQUESTS.read(b"A: " + b"b" * 98)
    assert refused.value.status == 431


def test_a_field_is_a_value() -> None:
    assert REQUESTS.read(b"TE: a")[0] == Field(fields.TE, b"te", b"a", b"TE: a")
