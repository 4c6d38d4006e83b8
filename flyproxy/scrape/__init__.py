"""The apps' own /metrics. Knows series, config and discovery; hands batches to whoever runs it.

manager     which targets exist, their beats, and their state and metadata for whoever asks
cohorts     which targets are scraped together, and when (pure)
target      one target: from a page to a batch; what it writes about itself; stale markers
labelling   forced labels, names that are ours, duplicates, too many new series (pure)
births      which counters of a first page began just now (pure)
fetch       one page over HTTP, within its bounds
connection  what the HTTP client does not bound: interim answers, framing around a body
unpack      a body up to a bound that counts what it is unpacked to (pure)
faults      why there is no page, in words
large_pages room in memory for large pages, and the thread that reads them
turns       a bounded number of places; who gave the last one back is served first
"""
