"""`InferMax-v0`: admit, preempt, run.

Reading order: `env` (the contract), `layout` (actions and features), `config` and `episode` (what an episode is drawn
from), `vector` (many lanes in one call), `teacher` (a policy of the table as an agent); then the compiled side: `lane`
(memory), `step` (the entry), `legal` (what may be done), `slots` (whom the agent sees), `observe` (what it sees).
"""
