"""The apps' own /metrics. Knows series, config and discovery; hands batches to whoever runs it.

manager     which targets exist, and their beat
target      one target: fetch, read, forced labels, stale markers, its state
"""
