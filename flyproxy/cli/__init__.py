"""The `flyproxy` command (click): one file a verb. Knows the doors of all rooms below.

main        the group; verbs are imported only when called
"""
