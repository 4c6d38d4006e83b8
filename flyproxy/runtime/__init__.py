"""Processes. Each file is one process' bill of materials; only here do the rooms meet.

supervisor       owns sockets and children: starts, watches, restarts, reloads, drains
places           the folders it lives in: the data directory, the run directory
doors            the listening sockets, opened once, inherited
slots            a place for one child, filled again whenever it is empty
children         how a child comes to life: a process, or a thread with its own loop
generations      from one configuration to the next: all children, or none
control          the channel between supervisor and child
messages         what they say to each other over it
entry            how a child process begins
child_channel    a child's side: start, prepare, commit, drain, in order
segment          a child's counters in shared memory, wherever there is room
loop_watch       how late its loop is
edge_worker      one data-plane process: edge and recorder
log_pipe         its access log to a descriptor, without waiting for the reader
telemetry        the writer and the API
own_beat         the front door's own counters, sampled into the store
host_beat        and this machine, every so often, for the instances on it
store_thread     the store's writer, on a thread of its own
front_door_state what telemetry knows of the whole front door
known_metadata   type, help and unit of what an organization has
query_client     telemetry's side of a query worker
seats            whose question the query workers get next
query_channel    what the two say to each other
query_worker     a killable process that answers queries
"""
