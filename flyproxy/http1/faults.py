"""What is wrong with a message, with the status it deserves."""

from flyproxy.errors import FlyproxyError


class HttpFault(FlyproxyError):
    """A message we refuse. Whoever sent it gets no second one: answer (or pass on) `status`, then close.

    status   400, 414, 417, 431, 501 or 505 for a request; 502 for anything an instance sent
    reason   a short sentence for the reader; made of our own words only, so it may go into a page or a log as it is
    limit    the field of HeadLimits that was exceeded, for the metric that shows a bound reached; "" for other faults
    """

    def __init__(self, status: int, reason: str, limit: str = "") -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.limit = limit
