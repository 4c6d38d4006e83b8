"""What we count. Knows series; never the edge that counts, nor the store that keeps.

catalog     every family we export, once: name, type, help, labels, buckets
cells       a worker's shared-memory segment: append-only slots with their labels
recorder    the hot path's verbs
snapshot    all workers' cells summed into one batch per organization
collector   our families for any prometheus_client registry
"""
