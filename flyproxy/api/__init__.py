"""What people ask, over HTTP (aiohttp.web). Is handed small Protocols (ports) by the runtime.

ports         what the runtime hands us: query, expose, status
application   routes and middleware, put together
connections   how many there are, how long a head takes, how long an answer waits for its reader
tokens        data_dir/tokens: minting, checking, scopes
access        whose token a request carries; whether it comes from this machine
asking        what every route of an organization begins and ends with: token, parameters, the way to a query worker
prometheus    /prometheus/<org>/api/v1/: questions about samples; /federate
status        .../status/: buildinfo, config, flags, runtimeinfo, tsdb
targets       .../targets, scrape_pools, metadata
rules         .../rules, alerts
unbuilt       what is not there, and says so
unparsed      what is said to bytes that are no request
multipart     the fields of a multipart form
parameters    times, steps, durations and match[] out of a request, with their sentences
admission     how many queries of one organization run, wait, or are refused
query_service one question answered in a query worker: engine and store to status and JSON
render        results as Prometheus' JSON bytes
federate      the newest samples as Prometheus' text
tsdb_status   tables of an organization's largest metrics and labels
faults        a refusal: status, errorType and sentence
metrics       /metrics
negotiation   whether an answer may be compressed, and compressing it
meta          the front page, /meta/regions.json, /-/healthy, /-/ready, /-/reload
grafana       /grafana/<name>.json
grafana_dashboards    the dashboards, built
grafana_provisioning  the files that Grafana reads at its start
client        the same API from the other side, for the command line
"""
