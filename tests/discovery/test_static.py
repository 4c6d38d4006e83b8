"""The instances and targets a configuration names."""

from flyproxy.config.load import load_bytes
from flyproxy.config.resolve import resolve
from flyproxy.config.resolved import Resolved
from flyproxy.discovery.static import static_generation

TEXT = b"""
apps:
  - name: hello
    metrics: [{port: 9091}, {path: /queue}]
    instances: [{address: "127.0.0.1:8081", id: 00000000000001}, {address: "[::1]:8082", id: 00000000000002}]
  - name: quiet
    instances: [{address: "127.0.0.1:8083", id: 00000000000003}]
"""


def resolved(text: bytes = TEXT) -> Resolved:
    return resolve(load_bytes(text, "f.yml", environ={}))


def test_a_generation_has_its_number_and_what_exists() -> None:
    generation = static_generation(7, resolved())
    assert generation.number == 7
    assert generation.owned() == {
        ("personal", "hello", ""),
        ("personal", "hello", "00000000000001"),
        ("personal", "hello", "00000000000002"),
        ("personal", "quiet", ""),
        ("personal", "quiet", "00000000000003"),
    }


def test_each_instance_is_a_target_for_each_endpoint_of_its_app() -> None:
    targets = static_generation(1, resolved()).targets
    assert [(target.app.name, target.instance.id, target.url) for target in targets] == [
        ("hello", "00000000000001", "http://127.0.0.1:9091/metrics"),
        ("hello", "00000000000001", "http://127.0.0.1:8081/queue"),
        ("hello", "00000000000002", "http://[::1]:9091/metrics"),
        ("hello", "00000000000002", "http://[::1]:8082/queue"),
    ]


def test_the_same_configuration_makes_the_same_targets() -> None:
    assert static_generation(1, resolved()).targets == static_generation(2, resolved()).targets


def test_no_apps_no_targets() -> None:
    assert static_generation(1, resolved(b"")).targets == ()


def test_an_endpoint_of_process_groups_is_only_on_their_instances() -> None:
    text = b"""
apps:
  - name: hello
    metrics: [{port: 9091, processes: [web]}, {port: 9092, processes: [worker, cron]}, {port: 9093}]
    instances:
      - {address: "127.0.0.1:1", process: web}
      - {address: "127.0.0.2:2", process: worker}
      - {address: "127.0.0.3:3", process: cron}
      - {address: "127.0.0.4:4", process: shell}
"""
    assert [target.address for target in static_generation(1, resolved(text)).targets] == [
        "127.0.0.1:9091",
        "127.0.0.1:9093",
        "127.0.0.2:9092",
        "127.0.0.2:9093",
        "127.0.0.3:9092",
        "127.0.0.3:9093",
        "127.0.0.4:9093",
    ]
