"""Whether an answer may be compressed (RFC 9110 12.5.3)."""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named, or else `*` is, with a quality above 0."""
    qualities = dict(_coding(item) for item in accept_encoding.split(","))
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _coding(item: str) -> tuple[str, float]:
    """Name and quality; one whose quality is no number between 0 and 1 counts as refused."""
    name, _, rest = item.partition(";")
    _, equals, weight = rest.partition("=")
    try:
        quality = float(weight) if equals else 1.0
    except ValueError:
        quality = 0.0
    return name.strip().lower(), quality if 0 <= quality <= 1 else 0.0
