"""The files that Grafana reads at its start: a data source for one organization, and where the dashboards are.

Grafana expands `$NAME` in these files, so the token stays in the environment, and a `$` that is meant is written twice.
Strings are quoted as JSON, which YAML reads alike.
"""

import hashlib
import json

from flyproxy.api.tokens import OPERATOR_ORGANIZATION

MARK = "# Written by `flyproxy grafana provision`; it may be written anew."
"""First line of every file here: how ours are told from others'."""
TIME_INTERVAL = "15s"
"""The step Grafana takes our samples to have; `$__rate_interval` is at least four of it."""
_UID_MAX = 40


def datasource_uid(organization: str) -> str:
    """`flyproxy-<org>`; Grafana takes 40 characters, of a longer one the end is a hash."""
    uid = f"flyproxy-{organization}"
    if len(uid) <= _UID_MAX:
        return uid
    digest = hashlib.sha256(uid.encode()).hexdigest()[:8]
    return f"{uid[: _UID_MAX - 9]}-{digest}"


def datasource_url(base_url: str, organization: str) -> str:
    """What Grafana's own server asks."""
    return f"{base_url}/prometheus/{organization}"


def token_command(organization: str) -> str:
    """What prints a token that may ask it."""
    return "flyproxy auth token " + ("--operator" if organization == OPERATOR_ORGANIZATION else f"--org {organization}")


def datasource_yaml(base_url: str, organization: str, token_variable: str) -> str:
    """provisioning/datasources/flyproxy.yaml."""
    return f"""\
{MARK}
# Grafana's environment needs {token_variable}: {token_command(organization)}
apiVersion: 1
datasources:
  - name: {_quoted(f"flyproxy {organization}")}
    uid: {_quoted(datasource_uid(organization))}
    type: prometheus
    access: proxy
    url: {_quoted(datasource_url(base_url, organization))}
    jsonData:
      httpMethod: POST
      timeInterval: {TIME_INTERVAL}
      prometheusType: Prometheus
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: "Bearer ${token_variable}"
"""


def provider_yaml(folder: str) -> str:
    """provisioning/dashboards/flyproxy.yaml; `folder` is where Grafana finds the JSON files."""
    return f"""\
{MARK}
apiVersion: 1
providers:
  - name: flyproxy
    type: file
    folder: flyproxy
    allowUiUpdates: true
    options:
      path: {_quoted(folder)}
"""


def _quoted(text: str) -> str:
    return json.dumps(text.replace("$", "$$"))
