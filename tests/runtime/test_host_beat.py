"""When this machine is read, and for whom."""

from collections.abc import Sequence

from flyproxy.config.resolved import App, Instance
from flyproxy.instrument.instance_metrics import InstanceMetrics, LocalInstance
from flyproxy.instrument.procfs import Reading
from flyproxy.runtime.host_beat import HostBeat, instances_here

ONE = LocalInstance("personal", "hello", "ord", "2bc3", "3d8d9e27b24e89")
TWO = LocalInstance("personal", "hello", "ams", "2bc3", "4d8d9e27b24e89")


class Machine:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.broken = False
        self.beat = HostBeat(InstanceMetrics(lambda limit: None), self.read)

    def read(self) -> Sequence[Reading]:
        self.reads += 1
        if self.broken:
            raise OSError(5, "Input/output error")
        return [Reading("fly_instance_uptime_seconds", (), float(self.reads))]


async def test_it_is_read_every_five_seconds_however_fast_own_beats_are() -> None:
    machine = Machine()
    machine.beat.keep([ONE], 500)
    stamps = [at for at in range(10_000, 21_000, 500) if await machine.beat.take(at)]
    assert stamps == [10_000, 15_000, 20_000]
    assert machine.reads == 3


async def test_slow_own_beats_read_it_every_time() -> None:
    machine = Machine()
    machine.beat.keep([ONE], 15_000)
    batches = [await machine.beat.take(at) for at in (15_000, 30_000)]
    assert [batch.interval_ms for (batch,) in batches] == [15_000, 15_000]
    assert machine.reads == 2


async def test_one_read_serves_all_instances() -> None:
    machine = Machine()
    machine.beat.keep([ONE, TWO], 5000)
    (batch,) = await machine.beat.take(5000)
    assert batch.values.tolist() == [1.0, 1.0]
    assert machine.reads == 1
    assert [sample.value for sample in machine.beat.families()[0].samples] == [1.0, 1.0]


async def test_a_machine_without_instances_is_not_read() -> None:
    machine = Machine()
    machine.beat.keep([], 5000)
    assert await machine.beat.take(5000) == []
    assert machine.reads == 0


async def test_who_leaves_ends_with_the_next_beat() -> None:
    machine = Machine()
    machine.beat.keep([ONE], 500)
    await machine.beat.take(10_000)
    machine.beat.keep([ONE], 500)
    assert await machine.beat.take(10_500) == []
    machine.beat.keep([], 500)
    assert len(await machine.beat.take(11_000)) == 1
    assert await machine.beat.take(30_000) == []


async def test_a_machine_that_cannot_be_read_is_tried_again_and_costs_nobody_a_beat() -> None:
    machine = Machine()
    machine.beat.keep([ONE], 5000)
    machine.broken = True
    assert await machine.beat.take(5000) == []
    machine.broken = False
    assert len(await machine.beat.take(10_000)) == 1


def test_only_instances_at_an_address_of_this_machine_are_here() -> None:
    addresses = {
        "127.0.0.1": "3d8d9e27b24e89",
        "127.8.0.3": "4d8d9e27b24e89",
        "::1": "5d8d9e27b24e89",
        "203.0.113.9": "6",
    }
    instances = tuple(Instance(name, address, 80, "ord", "2bc3") for address, name in addresses.items())
    here = instances_here([App("hello", "personal", (), instances, ())])
    assert [instance.instance for instance in here] == ["3d8d9e27b24e89", "4d8d9e27b24e89", "5d8d9e27b24e89"]
    assert here[0] == ONE
