"""The vocabulary of time series. Knows nothing of any other room.

labels      a series' identity, and the reserved names
matchers    = != =~ !~ on one label (RE2, anchored)
durations   1h30m in and out
samples     what comes in: one batch, one timestamp, a layout of series
frame       what is stored and selected: a matrix [series, times] with one timestamp vector
metadata    what is said about a metric: type, help, unit
exposition_writer, exposition_parser, exposition_metadata   the text formats of /metrics
"""
