"""PromQL over frames. Knows series; is handed a Storage to select from, never a database.

engine      the one door: an expression, a storage and a time range in; a Result out
parse       text to nodes, every error with its position; over lex (tokens), literals, quoting,
            operators and build (nodes out of their parts, the rules of types)
functions   the signatures of what may be called
format      nodes back to text
nodes       what an expression is made of (frozen)
plan        equal selectors shared, windows and offsets worked out once
evaluate    nodes to matrices, bottom-up, in blocks that fold into aggregations
matrix      the value of an instant vector at every step: labels, values, presence
range_functions, instant_functions, aggregate, binary, histogram   the arithmetic, on arrays
"""
