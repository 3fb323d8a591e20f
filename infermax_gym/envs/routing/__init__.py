"""`InferMaxRouter-v0`: which replica gets the arriving request.

Reading order: `env` (the contract), `layout` (features), `config` and `episode` (what an episode is drawn from),
`vector` (many lanes in one call), `teacher` (a policy of the table of routers as an agent); then the compiled side:
`step` (the entry), `observe` (what the agent sees).
"""
