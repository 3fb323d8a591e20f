"""Engines by name: what iterations of a model cost on a GPU, and what such an engine resolves to.

    >>> from infermax_gym.cost.engines import find_engine
    >>> engine = find_engine("llama-3.1-70b@h100x4/fp8")
    >>> engine.cost.num_devices, engine.backend, engine.kv_dtype
    (4, 'vllm', 'fp8')

Names and what is left out: docs/costs.md. The table is read when the first engine is asked for.
"""

from infermax_gym.cost.engines.names import BACKENDS, EngineName, EngineNameError
from infermax_gym.cost.engines.table import Engine, Error, Silicon, engines, find_engine

__all__ = ["BACKENDS", "Engine", "EngineName", "EngineNameError", "Error", "Silicon", "engines", "find_engine"]
