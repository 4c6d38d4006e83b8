"""flyproxy: a front door for apps, with the metrics built in.

Rooms, from the ground up: clock, errors and extension; series and http1; config, discovery, instrument, tsdb and
promql; edge and scrape; api; runtime; cli. Imports run down these floors only (`tests/test_house.py` holds the table).
"""

__version__ = "0.1.0"
