"""The models, the shipped file of every default, and what a process that resolves nothing may avoid importing."""

import re
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
import yaml

from flyproxy.config.load import load_bytes, load_file
from flyproxy.config.models import App, Configuration, Instance, Listener, Metrics, Region, Section

ROOT = Path(__file__).parents[2]
DEFAULTS = ROOT / "config" / "flyproxy.yaml"
SECTIONS = ("edge", "telemetry", "limits", "timeouts", "scrape_limits", "promql")


def test_the_shipped_file_is_the_defaults() -> None:
    assert load_file(str(DEFAULTS), environ={}).configuration == Configuration()
    assert load_bytes(b"", "f.yml", environ={}).configuration == Configuration()


def test_the_shipped_file_has_every_key() -> None:
    written = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    assert list(written) == list(Configuration.model_fields)
    for section in SECTIONS:
        model = Configuration.model_fields[section].annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        assert list(written[section]) == list(model.model_fields)
    assert list(written["listeners"][0]) == list(Listener.model_fields)


def test_the_shipped_files_examples_have_every_key_and_are_valid() -> None:
    text = DEFAULTS.read_text(encoding="utf-8")
    examples = re.sub(r"(?m)^# ?((apps|regions):$|  .*)", r"\1", text)
    examples = examples.replace("apps: []\n", "").replace("regions: []                 # beyond the shipped list\n", "")
    configuration = load_bytes(examples.encode(), "examples.yml", environ={}).configuration
    written = yaml.safe_load(examples)
    assert (len(configuration.apps), len(configuration.regions)) == (1, 1)
    for model, item in (
        (App, written["apps"][0]),
        (Instance, written["apps"][0]["instances"][0]),
        (Metrics, written["apps"][0]["metrics"]),
        (Region, written["regions"][0]),
    ):
        assert set(item) == set(model.model_fields)


def test_models_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        Configuration().edge.region = "ord"


def test_resolved_values_and_regions_import_no_pydantic() -> None:
    code = "import sys, flyproxy.config.resolved, flyproxy.config.regions; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
