"""The parts of an iteration, each as terms of a cost model."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log1p

from infermax_gym.cost import features
from infermax_gym.cost.forms import only_with_prefills
from infermax_gym.cost.model import Form
from infermax_gym.cost.roofline.devices import AllReduce, Device, Efficiency
from infermax_gym.cost.roofline.number_formats import KV_BYTES, WEIGHTS, WeightFormat, flops_per_s
from infermax_gym.cost.roofline.shapes import ModelShape

Term = tuple[Form, ...]

# Where reading and multiplying take alike, a GEMM takes longer than either: on RTX 4090, RTX PRO 6000 and H100 never
# less than this share of their sum.
_KNEE = 0.7


@dataclass(frozen=True)
class Part:
    """One part of an iteration.

    Attributes:
        name: what it is.
        bound: "memory", "compute", "communication" or "overhead": what limits it.
        term: linear forms in seconds over the batch features.
        concave: the part takes the smallest of its forms, else the largest.
        reading_s: of a matrix product, the seconds of reading its weights; what goes beyond is compute.
    """

    name: str
    bound: str
    term: Term
    concave: bool = False
    reading_s: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What the parts are made from: a model on devices, in formats."""

    shape: ModelShape
    device: Device
    efficiency: Efficiency
    all_reduce: AllReduce | None
    num_devices: int
    weights: str
    kv: str
    most_kv_tokens: int

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth of the memory, all of it."""
        return self.device.memory_tb_per_s * 1e12


def form(**coefficients: float) -> Form:
    """A linear form from seconds per feature, by the names of the features."""
    return tuple(coefficients.get(name, 0.0) for name in features.FEATURE_NAMES)


def parts_of(setting: Setting) -> tuple[Part, ...]:
    """All parts of an iteration; their times add up."""
    shape = setting.shape
    parts = [_floors(setting), *_products(setting), *_attention(setting), _activations(setting)]
    if shape.experts is not None:
        parts += _experts(setting)
    if setting.all_reduce is not None:
        latency, per_byte = setting.all_reduce.latency_s, setting.all_reduce.seconds_per_byte
        message = 2.0 * shape.hidden_size  # bytes a token, 16 bits
        count = 2 * shape.num_layers
        line = form(one=count * latency, num_tokens=count * message * per_byte)
        parts.append(Part("all-reduce", "communication", (line,)))
    return tuple(parts)


def _floors(setting: Setting) -> Part:
    shape, efficiency = setting.shape, setting.efficiency
    floor_s = shape.num_layers * efficiency.layer_floor_us * 1e-6
    if shape.experts is not None:
        floor_s += shape.experts.num_layers * efficiency.expert_floor_us * 1e-6
    return Part("floors", "overhead", (form(one=floor_s),))


def _products(setting: Setting) -> list[Part]:
    """Projections and MLPs that every token passes, and the output head for a token of each request."""
    shape, experts = setting.shape, setting.shape.experts
    kind = WEIGHTS[setting.weights]
    if kind.experts_only and experts is not None:
        kind = WEIGHTS["bf16"]
    num_weights = shape.num_attention_weights + shape.num_mlp_weights
    read_s, token_s = _matrix(setting, num_weights, kind)
    head_read_s, head_token_s = _matrix(setting, shape.num_head_weights, WEIGHTS["bf16"])
    between = form(one=_KNEE * read_s, num_tokens=_KNEE * token_s)
    layers = (form(one=read_s), form(num_tokens=token_s), between)
    head = (form(one=head_read_s), form(num_prefills=head_token_s, num_decodes=head_token_s))
    return [
        Part("matrix products", "memory", layers, reading_s=read_s),
        Part("output head", "memory", head, reading_s=head_read_s),
    ]


def _matrix(setting: Setting, num_weights: int, kind: WeightFormat) -> tuple[float, float]:
    """Seconds of reading so many weights, and of multiplying a token by them."""
    own = num_weights / setting.num_devices
    read_s = own * kind.bytes / (setting.bytes_per_s * setting.efficiency.memory_share)
    return read_s, 2.0 * own / flops_per_s(setting.device, setting.efficiency, kind)


def _activations(setting: Setting) -> Part:
    """Norms, rotary embedding and activation functions, which stream through memory at its full rate."""
    shape = setting.shape
    heads = 2 * (shape.num_heads + shape.num_kv_heads) * shape.head_dim
    wide = 3 * shape.intermediate_size
    dense = shape.num_layers
    numbers = shape.num_layers * (4.0 * shape.hidden_size + heads / setting.num_devices)
    if shape.experts is not None:
        dense -= shape.experts.num_layers
        experts = shape.experts
        passed = experts.experts_per_token * experts.intermediate_size + experts.shared_size
        spread = 2.0 * experts.experts_per_token * shape.hidden_size
        numbers += experts.num_layers * (3.0 * passed / setting.num_devices + spread)
    numbers += dense * wide / setting.num_devices
    return Part("activations", "memory", (form(num_tokens=2.0 * numbers / setting.bytes_per_s),))


# ------------------------------------------------------------------------------------------------------ attention


def _attention(setting: Setting) -> list[Part]:
    shape, efficiency = setting.shape, setting.efficiency
    floor_s = shape.num_layers * efficiency.attention_floor_us * 1e-6
    kv_heads = max(1.0, shape.num_kv_heads / setting.num_devices)
    read_s = 2.0 * kv_heads * shape.head_dim * KV_BYTES[setting.kv] / (setting.bytes_per_s * efficiency.decode_share)
    flops = 2.0 * shape.head_dim * shape.num_heads / setting.num_devices  # c^2 + 2 c m counts each pair twice
    work_s = flops / (setting.device.dense_16bit_tflops * 1e12 * efficiency.prefill_share)
    windowed = 0 if shape.window is None else shape.window.num_layers
    parts = [
        Part("attention floors", "overhead", (form(has_prefill=floor_s), form(has_decode=floor_s))),
        *_full_attention(shape.num_layers - windowed, work_s, read_s, efficiency.prefill_walk_us * 1e-6 / 1024),
        *_window_attention(setting, work_s, read_s),
    ]
    factor = efficiency.mixed_decode_factor_per_head * shape.num_heads / shape.num_kv_heads
    if factor > 1.0:
        extra_s = (factor - 1.0) * read_s * shape.num_layers
        most_s = extra_s * setting.most_kv_tokens
        beside = only_with_prefills(form(decode_context=extra_s), most_s)
        parts.append(Part("decodes beside prefills", "memory", beside))
    return parts


def _full_attention(num_layers: int, work_s: float, read_s: float, walk_s: float) -> list[Part]:
    if num_layers == 0:
        return []
    work, context = form(prefill_work=num_layers * work_s), form(prefill_context=num_layers * max(read_s, walk_s))
    decode = form(decode_context=num_layers * read_s)
    return [
        Part("prefill attention", "compute", (work, context)),
        Part("decode attention", "memory", (decode,)),
    ]


def _window_attention(setting: Setting, work_s: float, read_s: float) -> list[Part]:
    """A request's tokens see no more than the window: the smaller of all pairs and a window for each token.

    Exact where all requests of a batch are on the same side of the window, too high elsewhere.
    """
    window = setting.shape.window
    if window is None:
        return []
    work_s, read_s = work_s * window.num_layers, read_s * window.num_layers
    each = 2.0 * window.num_tokens * work_s
    pairs = (form(prefill_work=work_s), form(num_tokens=each, num_decodes=-each))
    context = (form(decode_context=read_s), form(num_decodes=window.num_tokens * read_s))
    return [
        Part("prefill attention in windows", "compute", pairs, concave=True),
        Part("decode attention in windows", "memory", context, concave=True),
    ]


# -------------------------------------------------------------------------------------------------------- experts

# Where the curve of woken experts is touched by lines, in mean tokens of an expert (T k / E, a little more where k / E
# is large). Between them the lines are at most 4 % too high.
_TOUCHED = (0.0, 0.1, 0.4, 0.9, 1.6, 2.6)


def woken_experts(num_experts: int, experts_per_token: int) -> tuple[tuple[float, float], ...]:
    """Lines whose minimum is the expected number of experts that T tokens wake, each routed at random.

    That number is E (1 - (1 - k/E)^T), concave in T. Skewed routing wakes fewer.

    Returns:
        (experts, experts per token) of each line; the last is all experts.
    """
    if experts_per_token >= num_experts:
        return ((float(num_experts), 0.0),)
    rate = -log1p(-experts_per_token / num_experts)
    lines = []
    for touched in _TOUCHED:
        slope = num_experts * exp(-touched)
        lines.append((num_experts - slope * (1.0 + touched), slope * rate))
    # One token wakes k, so the first line passes through that instead of touching at zero.
    lines[0] = (0.0, float(experts_per_token))
    return (*lines, (float(num_experts), 0.0))


def _experts(setting: Setting) -> list[Part]:
    """Reading the woken experts, and the compute beyond it once all are woken."""
    experts = setting.shape.experts
    assert experts is not None
    kind = WEIGHTS[setting.weights]
    read_s, token_s = _matrix(setting, setting.shape.num_weights_per_expert * experts.num_layers, kind)
    lines = woken_experts(experts.num_experts, experts.experts_per_token)
    reading = tuple(form(one=read_s * number, num_tokens=read_s * slope) for number, slope in lines)
    beyond = form(one=-read_s * experts.num_experts, num_tokens=token_s * experts.experts_per_token)
    return [
        Part("experts read", "memory", reading, concave=True),
        Part("experts multiplied", "compute", (form(), beyond)),
    ]
