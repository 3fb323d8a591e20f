"""Every scheduler that people use or publish, most as policies of one table, and the optimum to compare them with.

`catalogue.SCHEDULERS` has all of them by name, `policies.POLICIES` those that are policies; `predict.predictions` is
what policies with predictions are told, `optimum/` the constraint program, the exact search and the bounds.
"""
