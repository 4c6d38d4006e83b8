"""The machine's own figures, as Fly's dashboards ask for them, for each organization's instances."""

from typing import Any

import pytest

FILTER = 'app=~"^hello$",region=~"^.*$",host=~"^.*$"'
MACHINES_PANELS = [
    f'sum(rate(fly_instance_net_sent_bytes{{device="eth0",{FILTER}}}[1m]))',
    f'sum(rate(fly_instance_net_recv_bytes{{device="eth0",{FILTER}}}[1m]))',
    *(f'max(max_over_time(fly_instance_load_average{{minutes="{minutes}",{FILTER}}}[1m]))' for minutes in (1, 5, 15)),
    f"avg(fly_instance_memory_mem_total{{{FILTER}}})",
    f"avg(fly_instance_memory_mem_total{{{FILTER}}}) - avg(fly_instance_memory_mem_free{{{FILTER}}})",
    *(f'sum(irate(fly_instance_cpu{{mode="{mode}",{FILTER}}}[1m])) * 100' for mode in ("system", "user", "idle")),
    f'sum(irate(fly_instance_cpu{{mode=~".*irq",{FILTER}}}[1m])) * 100',
    'count(fly_instance_cpu{app="hello",mode="idle"}) without (cpu)',
]
"""fly_app_dashboard_2021, the row "Machines", and what the newer ones divide by."""


def configuration(toolbox: dict[str, Any], app_port: int, **telemetry: object) -> dict[str, Any]:
    app = {"name": "hello", "hostnames": ["hello.localhost"], "organization": "personal"}
    return {
        "edge": {"workers": 1, "region": "ord"},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}"}],
        "telemetry": {"own_interval": "1s", **telemetry},
        "organizations": [{"slug": "personal"}, {"slug": "acme"}],
        "apps": [
            {**app, "instances": [{"address": f"127.0.0.1:{app_port}"}, {"address": f"127.0.0.2:{app_port}"}]},
            {
                "name": "far",
                "organization": "acme",
                "hostnames": ["far.localhost"],
                "instances": [{"address": "198.51.100.7:80"}],
            },
        ],
        "timeouts": {"drain": "1s"},
    }


@pytest.mark.timeout(60)
def test_every_panel_about_machines_has_data(toolbox: dict[str, Any], start_front_door: Any) -> None:
    door = start_front_door(configuration(toolbox, toolbox["free_port"]()))

    def all_answer() -> bool:
        answers = [door.query(panel)["result"] for panel in MACHINES_PANELS]
        return all(len(answer) >= 1 for answer in answers)

    toolbox["eventually"](all_answer, 20.0, "a second reading of the machine")
    (total,) = door.query("avg(fly_instance_memory_mem_total)")["result"]
    with open("/proc/meminfo") as file:
        assert float(total["value"][1]) == int(file.readline().split()[1]) * 1024
    (jump,) = door.query('max(increase(fly_instance_cpu{mode="idle"}[5m]))')["result"]
    assert float(jump["value"][1]) < 100 * 400, "the kernel's past is no increase"


def test_instances_elsewhere_have_only_what_the_front_door_carried(
    toolbox: dict[str, Any], start_front_door: Any
) -> None:
    door = start_front_door(configuration(toolbox, toolbox["free_port"]()))
    toolbox["eventually"](lambda: door.vector("fly_instance_load_average", "instance"), what="a reading")
    assert len(door.vector("count by (instance) (fly_instance_cpu)", "instance")) == 2
    names = door.vector('count by (__name__) ({__name__=~"fly_instance_.+"})', "__name__", organization="acme")
    expected = {"fly_instance_up", "fly_instance_net_recv_bytes", "fly_instance_net_sent_bytes"}
    assert {name for (name,) in names} == expected
    exposed = door.exposed_sum("fly_instance_memory_mem_total", "app")
    assert set(exposed) == {("hello",)}


def test_it_can_be_turned_off_and_on_by_a_reload(toolbox: dict[str, Any], start_front_door: Any) -> None:
    door = start_front_door(configuration(toolbox, toolbox["free_port"]()))
    toolbox["eventually"](lambda: door.vector("fly_instance_load_average", "app"), what="a reading")
    text = door.config.read_text()
    door.config.write_text(text.replace('"own_interval": "1s"', '"own_interval": "1s", "instance_metrics": false'))
    assert door.reload().status == 200
    toolbox["eventually"](lambda: not door.vector("fly_instance_load_average", "app"), what="its series ended")
    assert not door.exposed_sum("fly_instance_load_average", "app")
    assert door.vector("count by (app) (fly_instance_up)", "app") == {("hello",): 2.0}
    door.config.write_text(text)
    assert door.reload().status == 200
    toolbox["eventually"](lambda: door.vector("fly_instance_load_average", "app"), what="it is back")
