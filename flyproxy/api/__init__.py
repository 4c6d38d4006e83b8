"""What people ask, over HTTP (aiohttp.web). Is handed small Protocols (ports) by the runtime.

ports       what the runtime hands us: query, snapshot, status, reload
tokens      data_dir/tokens: minting, checking, scopes
application routes and middleware, put together
prometheus  /prometheus/<org>/api/v1/...
parameters  times, steps, durations and match[] out of a request, with their sentences
render      results as Prometheus' JSON bytes
metrics     /metrics
meta        /meta/regions.json, /-/healthy, /-/ready, /-/reload
client      the same API from the other side, for the command line
"""
