"""The engine answers every query script as it says, however the samples lie in frames."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.mark.parametrize("layout", ["together", "alone", "cut"])
def test_a_script_is_answered_as_written(evaluation: Any, layout: str, check_evaluation: Callable[..., None]) -> None:
    check_evaluation(evaluation, layout)


@pytest.mark.peer("promtool")
def test_prometheus_2_answers_the_scripts_the_same_way(
    oracle_file: Path,
    script: Callable[[Path], list[Any]],
    is_the_same: Callable[[Any, list[tuple[str, float]]], bool],
    tmp_path: Path,
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    asked = [each for each in script(oracle_file) if each.mode == "prometheus2" and _is_plain_instant(each)]
    rules = tmp_path / "rules.test.yaml"
    rules.write_text(yaml.safe_dump({"evaluation_interval": "1s", "tests": [_unit_test(each) for each in asked]}))
    done = subprocess.run([promtool, "test", "rules", str(rules)], capture_output=True, text=True, timeout=60)
    answers = re.findall(r"^ +got: ?(.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(answers) == len(asked), done.stdout + done.stderr
    for evaluation, answer in zip(asked, answers, strict=True):
        rows = [(series, float(value)) for series, value in _SAMPLE.findall(answer)]
        assert is_the_same(evaluation, rows), f"{evaluation.name}: {evaluation.expression}: {answer}"


_SAMPLE = re.compile(r'((?:[\w:]+)?\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}) ([^ ,]+)')


def _is_plain_instant(evaluation: Any) -> bool:
    return not (evaluation.step_ms or evaluation.fails or evaluation.metricsql)


def _unit_test(evaluation: Any) -> dict[str, Any]:
    """Expects what cannot be, so that promtool prints what it got instead."""
    loaded, impossible = evaluation.loaded, [{"labels": '{impossible="yes"}', "value": 0}]
    return {
        "interval": f"{loaded[0][0]}ms",
        "input_series": [{"series": series, "values": values} for _, series, values in loaded],
        "promql_expr_test": [
            {"expr": evaluation.expression, "eval_time": f"{evaluation.start_ms}ms", "exp_samples": impossible}
        ],
    }
