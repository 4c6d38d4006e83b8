"""The apps' own /metrics. Knows series, config and discovery; hands batches to whoever runs it.

manager     which targets exist, their beat, and their state for whoever asks
target      one target: from a page to a batch; what it writes about itself; stale markers
labelling   forced labels, names that are ours, duplicates (pure)
births      which counters of a first page began just now (pure)
fetch       one page over HTTP, within its bounds
"""
