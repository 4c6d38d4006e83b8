"""The store: samples of many organizations in one SQLite database, as frames. Knows series and nothing else.

db          the one door: Writer (append, retention) and Reader (one organization's Storage, and its labels)
log         rows of the log: one target's samples at one time, as a delta of the row before
head        the log decoded: matrices that grow by a row
index       which series of which frame match
"""
