"""Every scheduler that people use or publish, most as rows of one table, and the optimum to compare them with.

`catalogue.SCHEDULERS` has all of them by name, `policies.POLICIES` those that are rows; `predict.predictions` is what
rows with predictions are told, `optimum/` the constraint program, the exact search and the bounds.
"""
