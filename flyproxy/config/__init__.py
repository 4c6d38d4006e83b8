"""The configuration: from YAML and flags to the plain values that processes get. Knows series.

models      the YAML as pydantic models, defaults included
load        a file to models; every fault with its line and column
checks      what needs more than one key to be judged
resolved    what children get: frozen, picklable, no pydantic
resolve     models to resolved values
regions     the shipped regions, and distances
"""
