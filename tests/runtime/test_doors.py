"""The listening sockets."""

import socket

import pytest

from flyproxy.config.resolved import Listener
from flyproxy.runtime.doors import DoorError, Doors, listen


def door(port: int, region: str = "ord") -> Listener:
    return Listener(host="127.0.0.1", port=port, http=True, region=region, app=None)


def test_port_0_becomes_one_real_port_for_all_workers() -> None:
    doors = Doors(3)
    (listener,), added = doors.open([door(0)])
    assert listener.port > 0
    assert added == [("127.0.0.1", listener.port)]
    numbers = [doors.descriptors(worker, [listener])[0] for worker in range(3)]
    assert len(set(numbers)) == 3
    ports = set()
    for number in numbers:
        with socket.socket(fileno=socket.dup(number)) as copy:
            ports.add(copy.getsockname()[1])
    assert ports == {listener.port}
    doors.close()


def test_a_taken_port_is_refused_with_its_address_and_nothing_stays_open() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        doors = Doors(2)
        with pytest.raises(DoorError, match=f"127.0.0.1:{taken}: something else listens there"):
            doors.open([door(0), door(taken)])
        assert doors._sockets == {}


def test_another_front_doors_shared_port_is_refused_too() -> None:
    first, second = Doors(1), Doors(1)
    (listener,), _ = first.open([door(0)])
    with pytest.raises(DoorError):
        second.open([door(listener.port)])
    first.close()


def test_a_kept_address_keeps_its_sockets_and_a_gone_one_is_closed() -> None:
    doors = Doors(1)
    (kept, gone), _ = doors.open([door(0), door(0)])
    before = doors.descriptors(0, [kept])
    again, added = doors.open([door(kept.port, region="fra")])
    assert added == []
    assert doors.descriptors(0, again) == before
    doors.keep_only(again)
    listen("127.0.0.1", gone.port, shared=False).close()
    doors.close()


def test_an_address_that_is_not_this_machines_is_named() -> None:
    with pytest.raises(DoorError, match=r"192\.0\.2\.1:80.*no such address"):
        listen("192.0.2.1", 80, shared=True)
