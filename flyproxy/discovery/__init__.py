"""Which instances exist now. Knows series and config.

static      the instances a configuration names, as one numbered generation
"""
