"""A recorder that counts nothing: what counting costs a request is the difference to the real one.

Only what is in flight is kept, because the balancer asks for it.
"""

from flyproxy.instrument.recorder import EdgeRecorder, InstanceRecorder, Recorder


class _Edge(EdgeRecorder):
    __slots__ = ()

    def response(self, status: int, duration_ns: int, bytes_in: int, bytes_out: int) -> None:
        pass

    def exchanged(
        self, instance: InstanceRecorder, status: int, duration_ns: int, instance_ns: int, bytes_in: int,
        bytes_out: int, to_instance: int, from_instance: int,
    ) -> None:  # fmt: skip
        instance.in_flight -= 1

    def transferred(self, bytes_in: int, bytes_out: int) -> None:
        pass

    def connected(self) -> None:
        pass

    def disconnected(self) -> None:
        pass

    def error(self, code: str) -> None:
        pass


class _Instance(InstanceRecorder):
    __slots__ = ()

    def started(self) -> None:
        self.in_flight += 1

    def finished(self) -> None:
        self.in_flight -= 1

    def response(self, status: int, duration_ns: int) -> None:
        pass

    def transferred(self, to_instance: int, from_instance: int) -> None:
        pass

    def dialled(self, duration_ns: int) -> None:
        pass

    def hung_up(self) -> None:
        pass


class UncountedRecorder(Recorder):
    """Its children stand in the segment at 0 and stay there: they are dirty from the start, so nobody marks them."""

    def edge(self, app: str, organization: str, region: str, host: str) -> EdgeRecorder:
        key = (app, organization, region, host)
        child = self._edges.get(key)
        if child is None:
            labels = {"app": app, "region": region, "host": host}
            child = self._edges[key] = _Edge(self, organization, labels)
            child.dirty = True
        return child

    def instance(self, app: str, organization: str, region: str, host: str, instance_id: str) -> InstanceRecorder:
        key = (app, organization, region, host, instance_id)
        child = self._instances.get(key)
        if child is None:
            labels = {"app": app, "region": region, "host": host, "instance": instance_id}
            child = self._instances[key] = _Instance(self, organization, labels)
            child.dirty = True
        return child
