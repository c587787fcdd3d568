"""Record the attention weights of every head of every nn.MultiheadAttention in a model, and leave its output alone.

    with attention_weights(model) as maps:
        model(x)
    maps["encoder.layers.0.self_attn"]  # (B, H, L, S)

Works with nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer and your own modules, in train and eval mode, with
and without gradients. The output is the same bit for bit, except where PyTorch would have taken a fused path for inference
(there it is the same within rounding): such a path keeps no weights, so it is left while the context is open. With it go
its peculiarities: an is_causal hint without a mask is an error again, and fully masked rows give what the slow path gives.

Not seen: models that call F.scaled_dot_product_attention themselves (put `sdpa_weights` beside that call), models under
torch.compile or TorchScript, and calls from a second thread at the same time. Needs PyTorch 2.13.
Letters: B batch, L queries, S keys, E embed_dim, H heads, D = E // H.
Source: torch 2.13's nn/functional.py (multi_head_attention_forward), nn/modules/transformer.py, nn/modules/module.py.
"""

import inspect
from contextlib import nullcontext
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

NOTHING_TO_RECORD = (
    "model: expected a module that holds an nn.MultiheadAttention, got {} without one. If it calls "
    "F.scaled_dot_product_attention, call sdpa_weights(query, key, ...) beside it; a model of another library has a "
    "switch of its own (Hugging Face: attn_implementation='eager' and output_attentions=True)"
)


class Maps(dict):
    """Name of a layer -> its weights, in the order of the first calls.

    (B, H, L, S), or (H, L, S) where the input was unbatched. A layer
    that was called several times has a list of them, in call order;
    `maps.calls(name)` is a list in either case.
    """

    def calls(self, name: str) -> list[Tensor]:
        found = self[name]
        return found if isinstance(found, list) else [found]

    def add(self, name: str, weights: Tensor) -> None:
        known = self.calls(name) if name in self else []
        self[name] = [*known, weights] if known else weights

    def __missing__(self, name):
        seen = ", ".join(map(repr, self)) or "nothing"
        raise KeyError(f"no call of {name!r} was recorded, only {seen}")


class attention_weights:
    """Context that records the weights of every head of a model.

    before_dropout: in training, the softmax itself and not what
        dropout left of it (whose rows do not sum to 1).
    keep_grad: maps keep their graph, down to parameters and inputs.
    cpu: copies on the CPU.
    half-precision layers give float32 maps, which is how SDPA reckons.
    Raises ValueError if the model holds no nn.MultiheadAttention.
    """

    def __init__(
        self, model, *, before_dropout=False, keep_grad=False, cpu=False
    ):
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise TypeError(f"model: expected an nn.Module, got {kind}")
        self.modules = dict(model.named_modules())  # name -> module
        if not any(map(is_attention, self.modules.values())):
            kind = type(model).__name__
            raise ValueError(NOTHING_TO_RECORD.format(kind))
        self.options = before_dropout, keep_grad, cpu
        self.open = []  # one recorder for each time it was entered

    # --8<-- [start:enter]
    def __enter__(self) -> Maps:
        recorder = Recorder(*self.options)
        for name, module in self.modules.items():
            if is_attention(module):
                before, after = recorder.of(name)
            elif isinstance(module, nn.TransformerEncoder):
                before = recorder.enter_encoder
                after = recorder.leave_encoder
            else:
                continue
            # the innermost context closes first: hence prepend
            recorder.handles += [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(
                    after, prepend=True, always_call=True
                ),
            ]
        self.open.append(recorder)
        return recorder.maps

    def __exit__(self, *exception) -> None:
        self.open.pop().close()
    # --8<-- [end:enter]


def is_attention(module) -> bool:
    return isinstance(module, nn.MultiheadAttention)


class Recorder:
    """The hooks of one open context, and what they recorded."""

    def __init__(self, before_dropout: bool, keep_grad: bool, cpu: bool):
        self.before_dropout, self.keep_grad = before_dropout, keep_grad
        self.cpu = cpu
        self.maps, self.handles = Maps(), []
        self.running = []  # (Tap or None, what was asked)
        self.length = None  # of a batch that PyTorch will nest

    def keep(self, name: str, weights: Tensor, batched: bool) -> None:
        weights = weights if batched else weights.squeeze(0)
        weights = weights if self.keep_grad else weights.detach()
        self.maps.add(name, weights.cpu() if self.cpu else weights)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        while self.running:  # KeyboardInterrupt skips forward hooks
            self.finish()

    def finish(self):
        tap, asked = self.running.pop()
        if tap:
            tap.__exit__(None, None, None)
        return tap, asked

    # --8<-- [start:hooks]
    def of(self, name: str):
        """The two hooks of one layer: before its forward, and after."""

        def before(module, args, kwargs):
            query = args[0] if args else kwargs["query"]
            if query.is_nested:  # only the fused path takes it
                asked = SIGNATURE.bind(module, *args, **kwargs)
                asked.apply_defaults()
                self.running.append((None, dict(asked.arguments)))
                asked.arguments["need_weights"] = True
                asked.arguments["average_attn_weights"] = False
                return asked.args[1:], asked.kwargs
            tap = Tap(self.before_dropout, self.keep_grad)
            self.running.append((tap, {"query": query}))
            tap.__enter__()

        def after(module, args, result):
            if not self.running:  # it failed before it came to us
                return None
            tap, asked = self.finish()
            if result is None:  # it failed in between
                return None
            if tap is None:
                return self.nested(name, asked, *result)
            batched = asked["query"].dim() == 3
            return self.keep(name, tap.seen(module, name), batched)

        return before, after
    # --8<-- [end:hooks]

    # --8<-- [start:nested]
    def nested(self, name: str, asked: dict, output, weights):
        """Pad the map of a nested batch to its length before nesting.

        weights (B, H, longest, longest) -> (B, H, L, L), 0 where there
        was padding. Returns what the caller had asked for.
        """
        missing = (self.length or weights.shape[-1]) - weights.shape[-1]
        self.keep(name, F.pad(weights, (0, missing, 0, missing)), True)
        if not asked["need_weights"]:
            return output, None
        average = asked["average_attn_weights"]
        return output, weights.mean(1) if average else weights

    def enter_encoder(self, module, args, kwargs) -> None:
        src = args[0] if args else kwargs["src"]  # (B, L, E)
        self.length = None if src.is_nested else src.shape[1]

    def leave_encoder(self, module, args, result) -> None:
        self.length = None
    # --8<-- [end:nested]


SIGNATURE = inspect.signature(nn.MultiheadAttention.forward)
# PyTorch's own function, which would hand itself back to the mode that runs it
FORWARD = inspect.unwrap(F.multi_head_attention_forward)
if FORWARD.__code__.co_freevars:
    raise ImportError(
        "F.multi_head_attention_forward: expected PyTorch's own, got one that wraps it and does not say so "
        f"({FORWARD.__qualname__}): import capture before it is wrapped, or wrap it with functools.wraps"
    )
BODY = FunctionType(
    FORWARD.__code__,
    {**vars(F), "has_torch_function": lambda arguments: False},
    argdefs=FORWARD.__defaults__,
)


# --8<-- [start:tap]
class Tap(TorchFunctionMode):
    """Sees the functions of PyTorch that one layer calls, and listens.

    While a mode is on, the layer does not take its fused path.
    """

    def __init__(self, before_dropout: bool, keep_grad: bool):
        super().__init__()
        self.before_dropout, self.keep_grad = before_dropout, keep_grad
        self.weights = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return BODY(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        result = func(*args, **kwargs)
        dropped = func is F.dropout and not self.before_dropout
        if func is F.softmax or dropped:  # weights were asked for
            self.weights = result
        return result
    # --8<-- [end:tap]

    # --8<-- [start:attend]
    def attend(
        self, query, key, value, attn_mask=None, dropout_p=0.0,
        is_causal=False, **options,
    ):  # fmt: skip
        """SDPA as PyTorch would call it, with the weights recomputed."""
        options["is_causal"] = is_causal
        fused = nullcontext()
        with nullcontext() if self.keep_grad else torch.no_grad():
            weights = sdpa_weights(query, key, attn_mask, **options)
            if dropout_p and not self.before_dropout:
                gpus = [query.device] if query.is_cuda else []
                with torch.random.fork_rng(gpus):  # SDPA draws it again
                    weights = F.dropout(weights, dropout_p)
                if gpus:  # fused kernels draw in an order of their own
                    fused = sdpa_kernel(SDPBackend.MATH)
        self.weights = weights
        with fused:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, **options
            )

    def seen(self, module, name: str) -> Tensor:
        if self.weights is None:
            how = "in a way that this file does not know"
            told = f"{name}: PyTorch {torch.__version__} attends {how}"
            raise RuntimeError(told)
        if self.weights.dim() == 4:
            return self.weights
        # (B * H, L, S) where weights were asked for
        return self.weights.unflatten(0, (-1, module.num_heads))
    # --8<-- [end:attend]


# --8<-- [start:sdpa_weights]
def sdpa_weights(
    query, key, attn_mask=None, *,
    is_causal=False, scale=None, enable_gqa=False,
) -> Tensor:  # fmt: skip
    """The weights that F.scaled_dot_product_attention never returns.

    query (..., L, D), key (..., S, D) -> (..., L, S), before dropout,
    at least float32. attn_mask (..., L, S): True is seen, a float is
    added. A row that sees nothing is 0. ValueError where SDPA raises.
    """
    if query.shape[-1] != key.shape[-1]:
        widths = f"query's {query.shape[-1]}, got {key.shape[-1]}"
        raise ValueError(f"key: expected a last axis as {widths}")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask: expected None with is_causal=True")
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(groups, -3)
    if is_causal:
        seen = query.new_ones(query.shape[-2], key.shape[-2])
        attn_mask = seen.tril().bool()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return masked_softmax(query, key, attn_mask, scale)
# --8<-- [end:sdpa_weights]


# --8<-- [start:masked_softmax]
def masked_softmax(query, key, attn_mask, scale: float) -> Tensor:
    exact = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.to(exact) * scale) @ key.to(exact).mT
        if attn_mask is None:
            return scores.softmax(-1)
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        else:
            scores = scores + attn_mask
        blind = scores.amax(-1, keepdim=True) == -torch.inf
        # before the softmax too, or gradients are NaN
        weights = scores.masked_fill(blind, 0).softmax(-1)
        return weights.masked_fill(blind, 0)
# --8<-- [end:masked_softmax]
