"""The scheduling algorithm, compiled: each file is a step.

`run` is the main loop; a decision is made in `decide` from `admit`, `order`, `serve` and `evict`, with `fit`, `keys`
and `queue` below them; `advance` carries it out, `fast_forward` repeats it, `group` serves decodes in lock-step;
`apply` carries out decisions made outside. `memory` reaches an engine's arrays.
"""
