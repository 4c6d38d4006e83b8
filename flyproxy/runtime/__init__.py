"""Processes. Each file is one process' bill of materials; only here do the rooms meet.

supervisor    owns sockets and children: starts, watches, restarts, reloads, drains
control       its channel to each child
children      how a child comes to life: a process, or a thread with its own loop
edge_worker   one data-plane process: edge and recorder
telemetry     the writer and the API
query_worker  a killable process that answers queries
query_client  telemetry's side of a query worker
"""
