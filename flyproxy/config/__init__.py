"""The configuration: from YAML and flags to the plain values that processes get. Knows series.

models      the YAML as pydantic models, defaults included
fields      the kinds of values a key can have, and the sentence for everything else
names, quantities   the grammar of addresses, hostnames and slugs; of sizes and durations
load        a file, the environment and flags to models; every fault at once
document    YAML with the line and column of every value
scalars     what one written value means; ${VAR}
toml_document, toml_places   TOML the same way
fly_toml    a fly.toml, read as Fly reads it
fly_keys    its keys, and what becomes of each
fly_front_door   a whole configuration from one fly.toml
fly_fill    what an app of a YAML file leaves to its fly.toml
checks      what needs more than one key to be judged
faults      a fault, and the one way it is shown
resolved    what children get: frozen, picklable, no pydantic
resolve     models to resolved values
machine     what resolving asks of the machine
show        the configuration in force as YAML again, whole or for one organization
regions     the shipped regions (regions.json), and distances
reference   docs/config.md from the models
"""
