"""PromQL over frames. Knows series; is handed a Storage to select from, never a database.

engine      the one door: an expression, a storage and a time range in; a Result out
parse       text to nodes, every error with its position; over lex (tokens), literals, quoting,
            operators and build (nodes out of their parts, the rules of types)
functions   the signatures of what may be called
format      nodes back to text
ast_json    nodes as Prometheus' JSON, for /api/v1/parse_query
latest      the newest sample of every series, for /federate; needs no engine
nodes       what an expression is made of (frozen)
options     the dialect and the bounds of a query
errors, parse_error   what can go wrong, by the API's status; a fault of the text with its place
plan        what to select: equal selectors shared, windows and offsets worked out once, series merged by identity
evaluate    nodes to values, bottom-up, in blocks; evaluate_aggregation folds them
matrix      an instant vector at every step, as a stream of blocks or held whole within a budget
sources     frames and subqueries as windows, block by block
windows     the window of every step in index space, rows with gaps packed
range_functions, instant_functions, label_functions, aggregate, ranking, range_ranking, binary, histogram   arithmetic
sums        compensated sums over groups and windows
cubes       windows laid side by side: quantiles, regression
"""
