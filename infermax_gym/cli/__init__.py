"""The `infermax` command. One command is one file; `app.py` lists them, `options.py` has what they share."""

from infermax_gym.cli.app import main

__all__ = ["main"]
