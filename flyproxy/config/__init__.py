"""The configuration: from YAML and flags to the plain values that processes get. Knows series.

models      the YAML as pydantic models, defaults included
fields      the kinds of values a key can have, and the sentence for everything else
names, quantities   the grammar of addresses, hostnames and slugs; of sizes and durations
load        a file, the environment and flags to models; every fault at once
document    YAML with the line and column of every value
scalars     what one written value means; ${VAR}
checks      what needs more than one key to be judged
faults      a fault, and the one way it is shown
resolved    what children get: frozen, picklable, no pydantic
resolve     models to resolved values
machine     what resolving asks of the machine
regions     the shipped regions (regions.json), and distances
reference   docs/config.md from the models
"""
