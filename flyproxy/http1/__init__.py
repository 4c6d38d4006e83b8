"""HTTP/1.1 without I/O. Knows nothing of sockets, apps or metrics.

limits      the bounds of a head and a chunk
head        what a request's or response's head says
parser      bytes to heads: the strict reference, and the line cache in front of it
body        framing: how many bytes of this belong to the body
writer      heads back to bytes
faults      what is wrong with a message, with the status it deserves
"""
