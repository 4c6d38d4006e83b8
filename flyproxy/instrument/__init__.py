"""What we count. Knows series; never the edge that counts, nor the store that keeps.

catalog     every family we export, once: name, type, help, labels, buckets
cells       a worker's shared-memory segment: append-only slots with their labels
allotment   which label set has which cells of a segment
recorder    the hot path's verbs
own_metrics what a process counts about itself, by the catalog's names
gc_pauses   how long the garbage collector stops it
base        the counts of workers that are gone
rows        one organization's series, and how their values follow from cells
snapshot    all workers' cells summed into one batch per organization
procfs      what the files of /proc say, as readings
host_reader reads this machine, and never waits long for it
instance_metrics  the machine's readings as series of every instance on it
process_metrics   process_* of every process, read from the outside
collector   our families for any prometheus_client registry

catalog, cells, allotment, own_metrics, gc_pauses and recorder are what an edge worker imports: no numpy in them.
"""
