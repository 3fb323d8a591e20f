"""Exact search: best-first over states, where a state says what each request has generated and holds.

What is here, in the order in which to read it:

1. `automaton`    one request: the situations it can be in and its actions in each. `reverse` is the same backward in
                  time, for the makespan.
2. `layout`       the records of the compiled search: `Tables`, `Scratch`, `Successors`, and their columns.
3. `tables`       `build`: from an instance to a `Problem`, which holds them. `loads` chooses its packing bounds.
4. `floor`        what a state still costs at least.
5. `expand`       every iteration that can follow a state, and the rules by which some are skipped without loss.
6. `beam`         a first schedule: the best few states of every iteration.
   `astar`        best-first search: labels, a hash table, a bucket queue, dominance.
7. `path`         from states back to a plan.
8. `exact`        `ExactSearch`: all of this for one instance, in slices of time, with an incumbent and a bound.
9. `alike`        `AlikeSearch`, used likewise, for identical requests: all states in an array, layer by layer.
   `alike_lists`  its states and tables; `alike_kernel` its loops.

Who calls whom:

    ExactSearch -> build -> RequestModel or ReverseModel, best_loads
                -> beam, search (astar) -> expand -> state_bound (floor)
                -> plan_of (path) -> expand
    AlikeSearch -> build, list_outcomes (alike_lists)
                -> advance (alike_kernel) -> state_bound (floor)
                -> plan_of (path)
"""
