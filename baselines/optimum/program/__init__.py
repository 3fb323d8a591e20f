"""The scheduling problem as a constraint program for OR-Tools CP-SAT.

Read `model` (`build`: variables and constraints), then `solve` (`ProgramSearch`, which runs CP-SAT and hands out plans
and bounds). OR-Tools is imported only when a program is built.
"""
