"""Fields of a multipart form, and nothing else that such a form may hold."""

import pytest

from flyproxy.api.faults import ApiFault
from flyproxy.api.multipart import multipart_pairs
from flyproxy.api.parameters import PARAMETERS_MAX

TYPE = "multipart/form-data; boundary=XX"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + b"--XX--\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


@pytest.mark.parametrize("content_type", [TYPE, 'multipart/form-data; charset=utf-8; boundary="XX"', TYPE + ";a=b"])
def test_plain_fields_are_read_in_order(content_type: str) -> None:
    body = form(field(b"query", 'up{ü="1"}\r\nor x'.encode()), field(b"match[]", b""), field(b"match[]", b"--X"))
    assert multipart_pairs(content_type, b"a preamble\r\n" + body + b"an end") == [
        ("query", 'up{ü="1"}\r\nor x'),
        ("match[]", ""),
        ("match[]", "--X"),
    ]


def test_a_form_without_fields_is_empty() -> None:
    assert multipart_pairs(TYPE, b"--XX--\r\n") == []


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"\r\nvalue",
        b"query=up",
        b"Content-Disposition: form-data\r\n\r\nup",
        b'Content-Disposition: attachment; name="query"\r\n\r\nup',
        b'Content-Disposition: form-data; name="query"; filename="a"\r\n\r\nup',
        b"Content-Disposition: form-data; name=query; filename*=x''%zz\r\n\r\nup",
        b"Content-Transfer-Encoding: base64\r\n" + field(b"query", b"dXA="),
        b"Content-Encoding: gzip\r\n" + field(b"query", b"up"),
        field(b"query", b"\xff"),
        field(b"\xff", b"up"),
        b"Content-Type: multipart/mixed; boundary=YY\r\n\r\n--YY--",
    ],
)
def test_a_part_that_is_no_plain_field_is_refused(part: bytes) -> None:
    with pytest.raises(ApiFault) as refused:
        multipart_pairs(TYPE, form(part))
    assert (refused.value.status, refused.value.error_type) == (400, "bad_data")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form()),
        ("multipart/form-data; boundary=", form()),
        ("multipart/form-data; boundary=" + "X" * 71, form()),
        (TYPE, b""),
        (TYPE, b"--XX"),
        (TYPE, b"--XX\r\n" + field(b"query", b"up")),
        (TYPE, b"--XY--\r\n"),
        (TYPE, b"--XXX\r\n" + field(b"query", b"up") + b"\r\n--XX--"),
    ],
)
def test_what_does_not_begin_and_end_with_its_boundary_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ApiFault, match="broken"):
        multipart_pairs(content_type, body)


def test_too_many_fields_are_refused_before_any_is_looked_at() -> None:
    assert len(multipart_pairs(TYPE, form(*[field(b"match[]", b"up")] * PARAMETERS_MAX))) == PARAMETERS_MAX
    with pytest.raises(ApiFault) as refused:
        multipart_pairs(TYPE, form(*[b"no field at all"] * (PARAMETERS_MAX + 1)))
    assert refused.value.limit == "api_parameters"


def test_content_transfer_encodings_that_change_nothing_are_read() -> None:
    assert multipart_pairs(TYPE, form(b"Content-Transfer-Encoding: 8bit\r\n" + field(b"a", b"b"))) == [("a", "b")]
