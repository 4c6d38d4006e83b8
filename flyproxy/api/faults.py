"""A request the API refuses: status, Prometheus' errorType and a sentence; and the JSON it becomes."""

import orjson

from flyproxy.errors import FlyproxyError


class ApiFault(FlyproxyError):
    """Raised anywhere on the way of a request; the middleware of application.py turns it into the answer."""

    def __init__(
        self, status: int, error_type: str, message: str, headers: dict[str, str] | None = None, limit: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.headers = headers or {}
        self.limit = limit
        """The bound that was reached, by its name in ports.LIMITS; "" when none."""


def bad_data(message: str, limit: str = "") -> ApiFault:
    """400: the request itself is wrong."""
    return ApiFault(400, "bad_data", message, limit=limit)


def bad_parameter(name: str, message: str) -> ApiFault:
    """400, in Prometheus' manner."""
    return bad_data(f'invalid parameter "{name}": {message}')


def error_json(error_type: str, message: str) -> bytes:
    """Prometheus' shape of an error. Lone surrogates (they cannot be UTF-8) become "?"."""
    text = message.encode("utf-8", "replace").decode()
    return orjson.dumps({"status": "error", "errorType": error_type, "error": text})
