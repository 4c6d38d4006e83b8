"""The `flyproxy` command (click): one file a verb. Knows the doors of all rooms below.

main        the group; verbs are imported only when called
run         the front door, until it is told to stop
check       every fault of a configuration file
demo        a front door in four regions, with demo_app, demo_traffic and demo_table
auth        tokens for the API
grafana     what Grafana needs: values, dashboards, provisioning
query       ask a running proxy in PromQL; query_offline a data directory
tsdb        the store: tsdb_text (samples in and out), tsdb_health (stats, check, backup), tsdb_place (which store)
place       where the running proxy of a configuration is
table       plain aligned columns for a terminal
"""
