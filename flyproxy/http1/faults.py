"""What is wrong with a message, with the status it deserves."""

from flyproxy.errors import FlyproxyError


class HttpFault(FlyproxyError):
    """A message we refuse. Whoever sent it gets no second one: answer (or pass on) `status`, then close.

    status   400, 414, 417, 431, 501 or 505 for a request; 502 for anything an instance sent
    reason   a short sentence for the reader; made of our own words only, so it may go into a page or a log as it is
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
