"""`InferMaxKnobs-v0`: set the knobs of the scheduling algorithm for the next control interval.

Reading order: `env` (the contract), `layout` (the knobs of an action), `config`, `teacher` (a policy of the table as an
agent); then the compiled side: `step` (the entry), `observe` (what the agent sees).
"""
