"""A dense decoder in plain PyTorch, with random weights and contiguous KV: the work of an iteration, not its meaning.

Every layer has weights and KV of its own, so that nothing is found in a cache that a real model would read from
memory. Prefills and decodes of a batch share the matrix products; each group has its own attention call. As engines
do, CUDA runs fuse what lies between the products, and split the KV of few long decodes among the multiprocessors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from infermax_gym.profiler.design import Batch
from infermax_gym.profiler.shapes import ModelShape

_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: Tensor  # ((heads + 2 kv heads) x head dim, hidden)
    out: Tensor  # (hidden, heads x head dim)
    gate_up: Tensor  # (2 x intermediate, hidden)
    down: Tensor  # (hidden, intermediate)
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
        self.head = self._random(shape.vocab_size, shape.hidden_size)
        self.norm = torch.ones(shape.hidden_size, device=device, dtype=dtype)
        self.layers = [
            _Layer(
                self._random((heads + 2 * kv_heads) * dim, shape.hidden_size),
                self._random(shape.hidden_size, heads * dim),
                self._random(2 * shape.intermediate_size, shape.hidden_size),
                self._random(shape.hidden_size, shape.intermediate_size),
                torch.ones(2, shape.hidden_size, device=device, dtype=dtype),
                self._random(num_kv_tokens, kv_heads, dim),
                self._random(num_kv_tokens, kv_heads, dim),
            )
            for _ in range(shape.num_layers)
        ]
        self._frequencies = 10_000.0 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
        self._fused = _Fused.on(device)
        self._num_multiprocessors = (
            torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
        )

    def _random(self, *size: int) -> Tensor:
        numbers = torch.empty(size, device=self._device, dtype=self._dtype)
        return numbers.normal_(0.0, 1.0 / math.sqrt(size[-1]), generator=self._rng)

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
        x, new = torch.zeros_like(self.embedding[ids]), self.embedding[ids]
        for layer in self.layers:
            x, normed = self._fused.add_norm(x, new, layer.norms[0])
            x, normed = self._fused.add_norm(x, self._attend(layer, batch, normed, rotation), layer.norms[1])
            new = functional.linear(self._fused.gated(functional.linear(normed, layer.gate_up)), layer.down)
        prefilled = batch.num_prefills * batch.chunk_tokens
        _, normed = self._fused.add_norm(x, new, self.norm)
        last = [normed[:prefilled].view(batch.num_prefills, -1, x.shape[-1])[:, -1]] if prefilled else []
        return functional.linear(torch.cat([*last, normed[prefilled:]]), self.head).argmax(-1)

    def _attend(self, layer: _Layer, batch: Batch, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        heads, kv_heads, dim = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        qkv = functional.linear(x, layer.qkv).view(x.shape[0], -1, dim)
        rotated, v = self._fused.rotate(qkv[:, : heads + kv_heads], *rotation), qkv[:, heads + kv_heads :]
        q, k = rotated[:, :heads], rotated[:, heads:]
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
            queries = q[new].view(count, chunk, heads, dim)
            parts.append(self._attention(queries, keys, values).reshape(-1, heads * dim))
            token, place = new.stop, held.stop
        return functional.linear(torch.cat(parts) if len(parts) > 1 else parts[0], layer.out)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of (B, c, heads, dim) to (B, m + c, kv heads, dim), last queries aligned with last keys."""
        if q.shape[1] == 1:
            parts = num_splits(k.shape[1], q.shape[0] * k.shape[2], self._num_multiprocessors)
            return _decode_in_parts(q, k, v, parts, self._fused.merge) if parts > 1 else _decode(q, k, v)
        return _prefill(q, k, v)


@dataclass(frozen=True)
class _Fused:
    """What lies between the matrix products, one kernel each on CUDA."""

    add_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gated: Callable[[Tensor], Tensor]
    merge: Callable[[Tensor, Tensor, int], Tensor]

    @classmethod
    def on(cls, device: torch.device) -> _Fused:
        parts: tuple[Any, ...] = (_add_norm, _rotate, _gated, _merge)
        if device.type == "cuda":
            parts = tuple(torch.compile(part, dynamic=True) for part in parts)
        return cls(*parts)


def _add_norm(x: Tensor, new: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream with what a part of the layer adds, and its RMS norm."""
    total = x + new
    wide = total.float()
    return total, (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPSILON)).to(x.dtype) * weight


def _gated(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding of (T, heads, dim)."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


def num_splits(length: int, num_heads: int, num_multiprocessors: int) -> int:
    """Parts into which the KV of each decode is cut, so that every multiprocessor has work; none under 512 tokens.

    Args:
        length: KV tokens of a decode.
        num_heads: KV heads of all decodes together.
        num_multiprocessors: of the device.
    """
    return max(1, min(2 * num_multiprocessors // num_heads, length // 512))


def _decode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query of each request; the heads that share a key are its queries, so that the KV is read once."""
    count, _, heads, dim = q.shape
    grouped = q.view(count, k.shape[2], -1, dim)
    one = functional.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2))
    return one.reshape(count, 1, heads, dim)


def _decode_in_parts(
    q: Tensor, k: Tensor, v: Tensor, parts: int, merge: Callable[[Tensor, Tensor, int], Tensor]
) -> Tensor:
    """The same on CUDA, the KV of each request cut into parts whose results are merged."""
    count, _, heads, dim = q.shape
    length, kv_heads = k.shape[1], k.shape[2]
    group = heads // kv_heads
    grouped = q.view(count, 1, kv_heads, group, dim).transpose(2, 3).expand(-1, parts, -1, -1, -1)
    queries = grouped.reshape(count * parts * group, kv_heads, dim)
    bounds, starts = _bounds(count, parts, length, group, q.device)
    flash = torch.ops.aten._flash_attention_forward
    keys, values = k.reshape(-1, kv_heads, dim), v.reshape(-1, kv_heads, dim)
    longest = -(-length // parts)
    found, weight = flash(queries, keys, values, starts, bounds, group, longest, 0.0, False, False)[:2]
    return merge(found.view(count, parts, group, kv_heads, dim), weight, heads)


@lru_cache(maxsize=1)
def _bounds(count: int, parts: int, length: int, group: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the keys and the queries of each part begin: the same in every layer."""
    edges = torch.arange(count * parts + 1, device=device, dtype=torch.int32)
    return edges // parts * length + edges % parts * length // parts, edges * group


def _merge(found: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Attention over the whole from attention over parts (B, parts, group, kv heads, dim) and its log weights."""
    count, parts, group, kv_heads, dim = found.shape
    share = torch.softmax(weight.view(kv_heads, count, parts, group), dim=2).permute(1, 2, 3, 0)
    merged = (found * share[..., None].to(found.dtype)).sum(1)
    return merged.transpose(1, 2).reshape(count, 1, heads, dim)


def _prefill(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    chunk, length = q.shape[1], k.shape[1]
    if q.is_cuda:
        flash = torch.ops.aten._flash_attention_forward
        found: Tensor = flash(q, k, v, None, None, chunk, length, 0.0, True, False)[0]
        return found
    mask = torch.ones(chunk, length, dtype=torch.bool, device=q.device).tril(length - chunk)
    k, v = (part.transpose(1, 2).repeat_interleave(q.shape[2] // k.shape[2], 1) for part in (k, v))
    return functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2)
