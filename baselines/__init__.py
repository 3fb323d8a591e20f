"""Every scheduler that people use or publish, as a row of one table, and the optimum to compare them with.

`policies.POLICIES` is the table, `predict.predictions` what rows with predictions are told, `optimum/` the
constraint program, the exact search and the bounds.
"""
