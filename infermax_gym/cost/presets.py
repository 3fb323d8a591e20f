"""Cost models that come with the package.

The INFERMAX figures are those of its public code (milliseconds per layer; arXiv 2411.07447). Their
`-infermax` twins also round decode contexts as that code does, so that its schedules can be reproduced.
"""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.cost.model import CostModel

_SOURCE = "INFERMAX (arXiv 2411.07447), linear batch-time coefficients of its public code"


def _from_ms_per_layer(name: str, num_layers: int, num_devices: int, coefficients: tuple[float, ...]) -> CostModel:
    form = tuple(value * num_layers * 1e-3 for value in coefficients)
    return CostModel(name=name, terms=((form,),), num_devices=num_devices, source=_SOURCE)


# In the order of `features`: b_o, a_o, b_p, a_p, s_p, m_p, b_d, a_d, s_d in the notation of the paper.
_LLAMA2_7B = (0.06486, 0.00191, 0.0926, 1.6773e-07, 0.001534, 9.224e-06, 0.01921, 8.513e-06, 0.00074)
_LLAMA3_70B = (0.159, 0.002, 0.2112, 4.309e-08, 9.03e-04, 3.805e-07, 0.081, 1.222e-06, 3.92e-04)

LLAMA2_7B_A100 = _from_ms_per_layer("llama2-7b-a100", 32, 1, _LLAMA2_7B)
LLAMA3_70B_A100X4 = _from_ms_per_layer("llama3-70b-a100x4", 80, 4, _LLAMA3_70B)


def _infermax_twin(model: CostModel) -> CostModel:
    return replace(model, name=f"{model.name}-infermax", floor_context=True)


COSTS: dict[str, CostModel] = {
    model.name: model
    for model in (
        LLAMA2_7B_A100,
        LLAMA3_70B_A100X4,
        _infermax_twin(LLAMA2_7B_A100),
        _infermax_twin(LLAMA3_70B_A100X4),
    )
}
"""Every preset by name."""
