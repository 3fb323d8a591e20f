"""A dense decoder in plain PyTorch, with random weights and contiguous KV: the work of an iteration, not its meaning.

Every layer has weights and KV of its own, so that nothing is found in a cache that a real model would read from
memory. Prefills and decodes of a batch share the matrix products; each group has its own attention call. On CUDA that
is PyTorch's own, which does not split a long context among multiprocessors: few decodes of long contexts take longer
than in an engine whose kernel does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from infermax_gym.profiler.design import Batch
from infermax_gym.profiler.shapes import ModelShape

_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: Tensor  # (hidden, (heads + 2 kv heads) x head dim)
    out: Tensor  # (heads x head dim, hidden)
    gate_up: Tensor  # (hidden, 2 x intermediate)
    down: Tensor  # (intermediate, hidden)
    norms: Tensor  # (2, hidden)
    keys: Tensor  # (KV tokens, kv heads, head dim)
    values: Tensor  # likewise


class Decoder:
    """The layers of a model, ready to run batches.

    Args:
        shape: the sizes.
        num_kv_tokens: tokens that the KV memory holds.
        device: of torch.
        dtype: of weights and KV.
        seed: of the random weights.
    """

    def __init__(
        self, shape: ModelShape, num_kv_tokens: int, device: torch.device, dtype: torch.dtype, seed: int = 0
    ) -> None:
        self.shape = shape
        self._rng = torch.Generator(device).manual_seed(seed)
        self._device, self._dtype = device, dtype
        heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
        self.embedding = self._random(shape.vocab_size, shape.hidden_size)
        self.head = self._random(shape.hidden_size, shape.vocab_size)
        self.norm = torch.ones(shape.hidden_size, device=device, dtype=dtype)
        self.layers = [
            _Layer(
                self._random(shape.hidden_size, (heads + 2 * kv_heads) * dim),
                self._random(heads * dim, shape.hidden_size),
                self._random(shape.hidden_size, 2 * shape.intermediate_size),
                self._random(shape.intermediate_size, shape.hidden_size),
                torch.ones(2, shape.hidden_size, device=device, dtype=dtype),
                self._random(num_kv_tokens, kv_heads, dim),
                self._random(num_kv_tokens, kv_heads, dim),
            )
            for _ in range(shape.num_layers)
        ]
        self._frequencies = 10_000.0 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)

    def _random(self, *size: int) -> Tensor:
        numbers = torch.empty(size, device=self._device, dtype=self._dtype)
        return numbers.normal_(0.0, 1.0 / math.sqrt(size[0] if len(size) == 2 else size[-1]), generator=self._rng)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids (T,) int64 and positions (T,) float32 of a batch: prefills one after another, then decodes."""
        ids = torch.randint(self.shape.vocab_size, (batch.num_tokens,), device=self._device, generator=self._rng)
        first = batch.prefill_context_tokens
        chunk = torch.arange(first, first + batch.chunk_tokens, device=self._device, dtype=torch.float32)
        one = torch.full((batch.num_decodes,), float(batch.decode_context_tokens), device=self._device)
        return ids, torch.cat([chunk.repeat(batch.num_prefills), one])

    @torch.inference_mode()
    def forward(self, batch: Batch, ids: Tensor, positions: Tensor) -> Tensor:
        """One iteration: (P + D,) int64, the most likely next token of every request."""
        angles = positions[:, None] * self._frequencies[None, :]
        rotation = torch.cos(angles).to(self._dtype)[:, None, :], torch.sin(angles).to(self._dtype)[:, None, :]
        x = self.embedding[ids]
        for layer in self.layers:
            x = x + self._attend(layer, batch, functional.rms_norm(x, x.shape[-1:], layer.norms[0], _EPSILON), rotation)
            gate, up = (functional.rms_norm(x, x.shape[-1:], layer.norms[1], _EPSILON) @ layer.gate_up).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ layer.down
        prefilled = batch.num_prefills * batch.chunk_tokens
        last = [x[:prefilled].view(batch.num_prefills, -1, x.shape[-1])[:, -1]] if prefilled else []
        ends = torch.cat([*last, x[prefilled:]])
        return (functional.rms_norm(ends, x.shape[-1:], self.norm, _EPSILON) @ self.head).argmax(-1)

    def _attend(self, layer: _Layer, batch: Batch, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        heads, kv_heads, dim = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        q, k, v = torch.split((x @ layer.qkv).view(x.shape[0], -1, dim), [heads, kv_heads, kv_heads], dim=1)
        q, k = _rotate(q, rotation), _rotate(k, rotation)
        parts, token, place = [], 0, 0
        groups = (
            (batch.num_prefills, batch.chunk_tokens, batch.prefill_context_tokens),
            (batch.num_decodes, 1, batch.decode_context_tokens),
        )
        for count, chunk, context in groups:
            if count == 0:
                continue
            new, held = slice(token, token + count * chunk), slice(place, place + count * (context + chunk))
            keys = layer.keys[held].view(count, context + chunk, kv_heads, dim)
            values = layer.values[held].view(count, context + chunk, kv_heads, dim)
            keys[:, context:] = k[new].view(count, chunk, kv_heads, dim)
            values[:, context:] = v[new].view(count, chunk, kv_heads, dim)
            parts.append(_attention(q[new].view(count, chunk, heads, dim), keys, values).reshape(-1, heads * dim))
            token, place = new.stop, held.stop
        return torch.cat(parts) @ layer.out


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of (T, heads, dim)."""
    cosine, sine = rotation
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of (B, c, heads, dim) to (B, m + c, kv heads, dim), last queries aligned with last keys."""
    count, chunk, heads, dim = q.shape
    length, kv_heads = k.shape[1], k.shape[2]
    if chunk == 1:  # the heads that share a key are its queries, so that the KV is read once
        grouped = q.view(count, kv_heads, heads // kv_heads, dim)
        one = functional.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2))
        return one.reshape(count, 1, heads, dim)
    if q.is_cuda:
        flash = torch.ops.aten._flash_attention_forward
        found: Tensor = flash(q, k, v, None, None, chunk, length, 0.0, True, False)[0]
        return found
    mask = torch.ones(chunk, length, dtype=torch.bool, device=q.device).tril(length - chunk)
    k, v = (part.transpose(1, 2).repeat_interleave(heads // kv_heads, 1) for part in (k, v))
    return functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2)
