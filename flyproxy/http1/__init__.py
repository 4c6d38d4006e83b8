"""HTTP/1.1 without I/O. Knows nothing of sockets, apps or metrics.

limits      the bounds of a head and a chunk
faults      what is wrong with a message, with the status it deserves
head        what a request's or response's head says
parser      bytes to heads: the strict reference, the memory in front of it (typed.pyx: ordinary ones, compiled)
shape       bounds of a head, and what can be said of one that is not complete yet
grammar     single pieces: request line, status line, header line, host
fields      what one header line means, looked at alone
framing     a head's lines against each other
body        framing: how many bytes of this belong to the body
writer      heads back to bytes
"""
