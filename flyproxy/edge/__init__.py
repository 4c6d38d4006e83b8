"""The request's way. Knows http1, config's resolved values and instrument; never a query, never the store.

listener    takes connections in and gives them to the proxy or the passthrough
proxy       the life of one request, top to bottom
router      host to app (pure)
balancer    which instance next (pure)
instance    one place an app runs: its address, its load, its recorder
pool        idle connections to one instance (pure decisions)
upstream    one connection to an instance
forwarding  the head that goes on (pure)
faults      what went wrong, whose fault it is, what the client reads
passthrough raw TCP doors
access_log  one line a request, never blocking
"""
