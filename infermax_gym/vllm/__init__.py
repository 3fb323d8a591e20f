"""Policies that run inside the real vLLM.

`vllm serve --scheduler-cls infermax_gym.vllm.PolicyScheduler --additional-config '{"infermax": {"policy":
"spf-headroom"}}'` puts a policy of the table, or a learned one, into a server; docs/vllm.md walks through it.

Reading order: `settings` (what a user writes), `translation` (which policies vLLM can follow), `decisions` (the policy
itself, from the requests' state), `requests`, `keys`, `queue`, `admission` and `order` (its parts), `knobs` and
`features` (controllers), `scheduler` (where vLLM calls it); then `steplog` (what is written down) and `readlog`.

Nothing here compiles anything or imports torch: vLLM brings its own numba and torch, and a decision is plain Python.
The decisions are those of `infermax_gym.engine.kernel` to the bit; `make test-vllm` holds both against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.translation import as_served

if TYPE_CHECKING:
    AsyncPolicyScheduler: type[Any]
    PolicyScheduler: type[Any]

__all__ = ["AsyncPolicyScheduler", "PlugInError", "PolicyScheduler", "as_served"]

if not TYPE_CHECKING:  # type checkers shall know the names above and no others

    def __getattr__(name: str) -> Any:
        """The scheduler classes, made when vLLM asks for them: only then is vLLM imported."""
        if name not in ("AsyncPolicyScheduler", "PolicyScheduler"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from infermax_gym.vllm.scheduler import scheduler_class

        globals()[name] = scheduler_class(name)
        return globals()[name]
