"""The measured layers do what a decoder does: chunks and decodes give what one long prefill gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from infermax_gym.profiler import layers  # noqa: E402
from infermax_gym.profiler.design import Batch  # noqa: E402
from infermax_gym.profiler.layers import Decoder  # noqa: E402
from infermax_gym.profiler.shapes import dense_shapes  # noqa: E402


def test_chunks_and_decodes_give_what_one_prefill_gives() -> None:
    decoder = Decoder(dense_shapes()["tiny"], 64, torch.device("cpu"), torch.float32)
    ids = torch.arange(12) * 7 % 256
    positions = torch.arange(12, dtype=torch.float32)
    whole = decoder.forward(Batch(1, 12, 0), ids, positions)
    decoder.forward(Batch(1, 8, 0), ids[:8], positions[:8])
    decoder.forward(Batch(1, 3, 8), ids[8:11], positions[8:11])
    assert decoder.forward(Batch(num_decodes=1, decode_context_tokens=11), ids[11:], positions[11:]) == whole


def test_requests_of_a_batch_do_not_see_each_other() -> None:
    decoder = Decoder(dense_shapes()["tiny"], 64, torch.device("cpu"), torch.float32)
    batch = Batch(2, 5, 0, 1, 0)
    ids, positions = decoder.inputs(batch)
    together = decoder.forward(batch, ids, positions)
    alone = [decoder.forward(Batch(1, 5, 0), ids[i : i + 5], positions[i : i + 5]) for i in (0, 5)]
    alone.append(decoder.forward(Batch(num_decodes=1, decode_context_tokens=0), ids[10:], positions[10:]))
    assert together.tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize(
    ("length", "num_heads", "parts"), [(128, 8, 1), (2_048, 8, 4), (32_768, 8, 33), (32_768, 256, 1), (32_768, 1024, 1)]
)
def test_few_long_decodes_are_split(length: int, num_heads: int, parts: int) -> None:
    assert layers.num_splits(length, num_heads, 132) == parts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the split runs in its kernel")
@pytest.mark.parametrize(("count", "length", "parts"), [(1, 1_001, 3), (3, 700, 2), (2, 4_096, 16)])
def test_a_split_decode_gives_what_the_whole_one_gives(count: int, length: int, parts: int) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(size, device="cuda", dtype=torch.bfloat16, generator=draw)
        for size in ((count, 1, 32, 128), (count, length, 8, 128), (count, length, 8, 128))
    )
    whole, split = layers._decode(q, k, v), layers._decode_in_parts(q, k, v, parts, layers._merge)
    torch.testing.assert_close(split, whole, atol=2e-2, rtol=2e-2)
