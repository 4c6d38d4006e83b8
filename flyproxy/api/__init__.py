"""What people ask, over HTTP (aiohttp.web). Is handed small Protocols (ports) by the runtime.

ports         what the runtime hands us: query, expose, status
application   routes and middleware, put together
connections   how many there are, how long a head takes, how long an answer waits for its reader
tokens        data_dir/tokens: minting, checking, scopes
access        whose token a request carries; whether it comes from this machine
prometheus    /prometheus/<org>/api/v1/...
parameters    times, steps, durations and match[] out of a request, with their sentences
admission     how many queries of one organization run, wait, or are refused; whose turn it is
query_service one question answered in a query worker: engine and store to status and JSON
render        results as Prometheus' JSON bytes
faults        a refusal: status, errorType and sentence
metrics       /metrics
negotiation   whether an answer may be compressed
meta          the front page, /meta/regions.json, /-/healthy, /-/ready, /-/reload
client        the same API from the other side, for the command line
"""
