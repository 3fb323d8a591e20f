"""Policies that run inside the real vLLM.

`vllm serve --scheduler-cls infermax_gym.vllm.PolicyScheduler --additional-config '{"infermax": {"policy":
"spf-headroom"}}'` puts a policy of the table, or a learned one, into a server; docs/vllm.md walks through it.

Reading order: `settings` (what a user writes), `translation` (which policies vLLM can follow), `decisions` (the policy
itself, from the requests' state), `requests`, `keys`, `columns`, `queue`, `admission`, `order` and `guard` (its
parts), `knobs`, `features` and `controlling` (controllers), `choosing` (selectors), `scheduler` (where vLLM calls it);
`steplog` (what is written down); then `emulation` and `executor` (a GPU that is timed and not computed), `virtual` (the
engine on a clock that jumps) and `model_folder`.

Nothing here compiles anything or imports torch: vLLM brings its own numba and torch, and a decision is plain Python.
The decisions are those of `infermax_gym.engine.kernel` to the bit; `make test-vllm` holds both against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.translation import as_served

if TYPE_CHECKING:
    AsyncPolicyScheduler: type[Any]
    EmulatedExecutor: type[Any]
    PolicyScheduler: type[Any]

__all__ = ["AsyncPolicyScheduler", "EmulatedExecutor", "PlugInError", "PolicyScheduler", "as_served"]

if not TYPE_CHECKING:  # type checkers shall know the names above and no others

    def __getattr__(name: str) -> Any:
        """Classes that vLLM is told to use, made when it asks for them: only then is vLLM imported."""
        if name in ("AsyncPolicyScheduler", "PolicyScheduler"):
            from infermax_gym.vllm.scheduler import scheduler_class

            globals()[name] = scheduler_class(name)
        elif name == "EmulatedExecutor":
            from infermax_gym.vllm.executor import executor_class

            globals()[name] = executor_class()
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]
