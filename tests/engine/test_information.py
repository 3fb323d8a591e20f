"""The kernel reads an output length only to see that a request has ended (and to reject what never fits)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.workload import Workload
from tests.engine.strategies import configs, examples, policies, predictions, workloads


@examples(200)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_the_past_does_not_depend_on_lengths_to_come(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    """Change the output lengths of some requests: the same schedule up to the first end that changes."""
    policy = replace(policy, refresh_tokens=0)  # a predictor that looks again knows, with its error, what is to come
    config = replace(config, max_model_len=200, max_output_tokens=30, num_kv_tokens=config.num_kv_tokens + 100)
    predicted = data.draw(predictions(workload))
    n = len(workload)
    changed = data.draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    other = replace(workload, num_output_tokens=changed)
    ours = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    theirs = simulate(other, config, policy, predicted=predicted, record_schedule=True)
    assert ours.finished.all()
    assert theirs.finished.all()
    differs = workload.num_output_tokens != other.num_output_tokens
    ends = np.minimum(ours.finish_s, theirs.finish_s)[differs]
    until_s = ends.min(initial=np.inf)
    assert ours.schedule is not None
    assert theirs.schedule is not None
    past = [[i for i in schedule if i.end_s <= until_s] for schedule in (ours.schedule, theirs.schedule)]
    assert past[0] == past[1]
