"""The request's way. Knows http1, config's resolved values and instrument; never a query, never the store.

server       the room's one door: start, new generations, drain
generation   what a configuration means here: routers, routes, instances
listener     takes connections in and gives them to clients or passthroughs
client       one client connection: its requests' bytes, one after the other
lane         the usual request, told straight: Python's; typed_lane.pyx: the same without the interpreter
proxy        the life of one request, top to bottom
account      what is counted and logged of a request
route        what a door knows of an app
router       host to app (pure)
balancer     which instance next (pure)
instance     one place an app runs: its address, its load, its recorder; dialling
pool         idle connections to one instance (pure decisions)
upstream     one connection to an instance
forwarding   the heads that go on, both ways (pure)
request_ids  names of requests and traces (pure)
dechunk      chunked bytes for HTTP/1.0 clients (pure)
faults       what went wrong, whose fault it is, what the client reads (pure)
proxy_protocol  the PROXY header, read and written (pure)
trusted      whose PROXY header is believed (pure)
proxied      connections that begin with one: it is read, then they are the client's
passthrough  raw TCP doors' connections
flow         one direction of one of them: copied, then spliced
splice       large bodies that go by such a flow, past Python
pipes        the kernel's pipes for that, and their bounds
readiness    when raw sockets can be read or written
wire         half a close, a close that says it is a failure, what became of bytes sent
worker       what all connections of the process share, and the ticker that keeps their deadlines
access_log   one line a request, never blocking
"""
