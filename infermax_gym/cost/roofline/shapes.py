"""What a decoder's layers look like: the sizes that its cost and its memory depend on."""

from __future__ import annotations

from dataclasses import dataclass

_LARGEST = 10_000_000
_BYTES_PER_NUMBER = 2


class ShapeError(ValueError):
    """A model's configuration cannot be used; one line that says what is wrong."""


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts layers of a model.

    Attributes:
        num_experts: experts of a layer, routed to.
        experts_per_token: experts that a token wakes.
        intermediate_size: width of an expert's gated MLP.
        shared_size: width of the MLP that every token passes besides; 0 without.
        num_layers: layers that have experts instead of an MLP.
    """

    num_experts: int
    experts_per_token: int
    intermediate_size: int
    shared_size: int
    num_layers: int


@dataclass(frozen=True)
class SlidingWindow:
    """Layers whose attention sees only so many tokens back.

    Attributes:
        num_tokens: how far back.
        num_layers: layers that are so; the others see everything.
    """

    num_tokens: int
    num_layers: int


@dataclass(frozen=True)
class ModelShape:
    """A decoder with grouped-query attention, and gated MLPs or experts.

    Attributes:
        name: short name.
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        num_heads: query heads.
        num_kv_heads: key and value heads; divides `num_heads`.
        head_dim: width of a head.
        intermediate_size: width of the MLP, in layers without experts.
        vocab_size: entries of the output head.
        experts: its mixture-of-experts layers, if any.
        window: its layers with sliding-window attention, if any.
        tied_embeddings: the embedding is the output head.
        weights: how its checkpoint holds weights, a key of `WEIGHTS`; None if that is not known.

    Raises:
        ShapeError: a size is out of range, or the query heads do not share the key heads evenly.
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    experts: Experts | None = None
    window: SlidingWindow | None = None
    tied_embeddings: bool = False
    weights: str | None = "bf16"

    def __post_init__(self) -> None:
        sizes = {name: value for name, value in vars(self).items() if type(value) is int}
        if self.experts is not None:
            sizes |= {f"experts.{name}": value for name, value in vars(self.experts).items() if name != "shared_size"}
        if self.window is not None:
            sizes |= {f"window.{name}": value for name, value in vars(self.window).items()}
        for name, value in sizes.items():
            if value < 1:
                raise ShapeError(f"model {self.name!r}: {name} must be at least 1, got {value}")
            if value > _LARGEST:
                raise ShapeError(f"model {self.name!r}: {name} must be at most {_LARGEST:,}")
        if self.num_heads % self.num_kv_heads:
            raise ShapeError(
                f"model {self.name!r}: {self.num_heads} query heads cannot share {self.num_kv_heads} key heads evenly"
            )
        self._check_layers()

    def _check_layers(self) -> None:
        for what, part in (("expert layers", self.experts), ("window layers", self.window)):
            if part is not None and part.num_layers > self.num_layers:
                raise ShapeError(f"model {self.name!r}: {part.num_layers} {what} of {self.num_layers} layers")
        experts = self.experts
        if experts is None:
            return
        if not 0 <= experts.shared_size <= _LARGEST:
            raise ShapeError(f"model {self.name!r}: experts.shared_size must be 0 to {_LARGEST:,}")
        if experts.experts_per_token > experts.num_experts:
            raise ShapeError(
                f"model {self.name!r}: a token cannot wake {experts.experts_per_token} of {experts.num_experts} experts"
            )

    @property
    def is_dense(self) -> bool:
        """Whether every layer has an MLP and sees all tokens."""
        return self.experts is None and self.window is None

    @property
    def num_attention_weights(self) -> int:
        """Weights of the projections of all layers."""
        return self.num_layers * self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)

    @property
    def num_mlp_weights(self) -> int:
        """Weights of all MLPs that every token passes: of dense layers, shared experts and routers."""
        experts = self.experts
        if experts is None:
            return 3 * self.num_layers * self.hidden_size * self.intermediate_size
        dense = 3 * (self.num_layers - experts.num_layers) * self.hidden_size * self.intermediate_size
        return dense + experts.num_layers * self.hidden_size * (3 * experts.shared_size + experts.num_experts)

    @property
    def num_weights_per_expert(self) -> int:
        """Weights of one expert of one layer."""
        return 0 if self.experts is None else 3 * self.hidden_size * self.experts.intermediate_size

    @property
    def num_expert_weights(self) -> int:
        """Weights of all experts of all layers."""
        experts = self.experts
        return 0 if experts is None else experts.num_layers * experts.num_experts * self.num_weights_per_expert

    @property
    def num_head_weights(self) -> int:
        """Weights of the output head."""
        return self.vocab_size * self.hidden_size

    @property
    def num_weights(self) -> int:
        """Weights of all layers, the embedding and the output head, which count once where they are tied."""
        ends = self.num_head_weights * (1 if self.tied_embeddings else 2)
        return self.num_attention_weights + self.num_mlp_weights + self.num_expert_weights + ends

    @property
    def kv_numbers_per_token_and_layer(self) -> int:
        """Keys and values that a token leaves in a layer."""
        return 2 * self.num_kv_heads * self.head_dim

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of 16-bit KV that a token takes in all layers."""
        return self.num_layers * self.kv_numbers_per_token_and_layer * _BYTES_PER_NUMBER
