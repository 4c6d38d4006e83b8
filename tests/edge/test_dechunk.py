import pytest

from flyproxy.edge.dechunk import Dechunker

FRAMED = b"5\r\nhello\r\n1;x=y\r\n \r\n00000A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
PAYLOAD = b"hello 0123456789"


def test_a_whole_body_gives_its_payload() -> None:
    assert Dechunker().feed(FRAMED) == PAYLOAD


@pytest.mark.parametrize("size", range(1, 12))
def test_the_payload_does_not_depend_on_how_the_bytes_come(size: int) -> None:
    dechunker = Dechunker()
    pieces = [FRAMED[at : at + size] for at in range(0, len(FRAMED), size)]
    assert b"".join(dechunker.feed(piece) for piece in pieces) == PAYLOAD
