"""The store: samples of many organizations in one SQLite database, as frames. Knows series and nothing else.

db          the one door: Writer, Reader, the errors
faults      what can go wrong, in the user's words
schema      the file: tables, version, how a connection is opened
writer      append: one transaction a beat, on the disk when it returns
target      how a batch becomes a row: newborn counters' zeros, ends, layouts that change
log         a row as bytes: a difference to the row before it, with a checksum
layout      labels and presence as bytes
compaction  sealing: the log's old rows become chunks, in bounded steps
merging     short-lived frames become one
retention   what is old goes, or what is too much, in bounded steps
reader      refresh, and one organization's samples and labels
frames      one stored frame as a reader knows it
index       which series of a frame match
heads       which columns are kept decoded, within a budget of bytes
head        a matrix that grows by a column a row
blocks      blocks of chunks, decoded when wanted and kept while there is room
replay      log rows read back in order; what was damaged is named and skipped
chunk       sealed columns as bytes: a head, and blocks of series that are read one by one
chunk_order   which series stand together in a block
chunk_block   a block as bytes: a table, and streams of like rows
chunk_rows    a row as integers, and back, bit for bit
check       every byte of a store looked over, what is damaged named
stats       what a store holds and costs, by organization
backup      a copy made while the writer runs
openmetrics_export     samples out as text with time stamps; openmetrics_families groups and types the names
openmetrics_import     text into frames; openmetrics_lines reads it, import_groups says what was sampled together
"""
