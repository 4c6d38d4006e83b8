"""The plain fields of a multipart form (RFC 7578), as `curl -F` sends them. Pure.

The whole body is there already, so its parts are counted before any is looked at: a megabyte of empty fields costs a
moment. Nothing of it is decoded by its own headers, and nothing of it is said to anybody.
"""

import re

from flyproxy.api.faults import bad_data
from flyproxy.api.parameters import check_count

_BOUNDARY = re.compile(r';[ \t]*boundary=(?:"([^"\\]{1,70})"|([^\s";,]{1,70}))[ \t]*(?:;|$)', re.ASCII | re.IGNORECASE)
_DISPOSITION = re.compile(rb"content-disposition[ \t]*:[ \t]*form-data[ \t]*(;.*)", re.IGNORECASE)
_NAME = re.compile(rb';[ \t]*name=(?:"([^"]*)"|([^\s";]+))', re.IGNORECASE)
_FILE = re.compile(rb";[ \t]*filename\*?=", re.IGNORECASE)
_CODED = re.compile(
    rb"content-(?:encoding|transfer-encoding)[ \t]*:[ \t]*+(?!(?:7bit|8bit|binary)[ \t]*$)", re.IGNORECASE
)


def multipart_pairs(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Names and values; raises ApiFault for what is no such form, or holds more than fields."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise bad_data("the multipart body is broken: its Content-Type has no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    whole = b"\r\n" + body
    check_count(whole.count(delimiter) - 1)
    _, *parts = whole.split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise bad_data("the multipart body is broken: it does not end with its boundary")
    return [_field(part) for part in parts[:-1]]


def _field(part: bytes) -> tuple[str, str]:
    head, blank, value = part.partition(b"\r\n\r\n")
    padding, *lines = head.split(b"\r\n")
    disposition = next((match[1] for line in lines if (match := _DISPOSITION.fullmatch(line))), b"")
    name = _NAME.search(disposition)
    if padding.strip(b" \t") or not blank or name is None:
        raise bad_data("the multipart body is broken: a part of it is no field")
    if _FILE.search(disposition) or any(_CODED.match(line) for line in lines):
        raise bad_data("a multipart body may hold plain fields only")
    try:
        return (name[1] or name[2] or b"").decode("utf-8"), value.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_data("the body holds a value that is not UTF-8") from None
