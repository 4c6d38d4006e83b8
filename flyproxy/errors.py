"""The ground every room's own errors stand on."""


class FlyproxyError(Exception):
    """Something the world did wrong, said in the user's words: what was got, what was wanted, and where."""


class NotReadyError(FlyproxyError):
    """A part that is starting, draining or being replaced; the same call may succeed in a moment."""
