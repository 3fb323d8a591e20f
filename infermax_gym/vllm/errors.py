"""What keeps a server from starting."""

from __future__ import annotations


class PlugInError(ValueError):
    """A setting, a policy or a server that the plug-in cannot work with; one line that says which and why."""
