"""Record the attention weights of every head of any model, and leave its output alone.

    with attention_weights(model) as maps:
        model(x)
    maps["encoder.layers.0.self_attn"]  # (B, H, L, S)

A map stands under the name of the module whose forward computed it, by nn.MultiheadAttention, by
F.scaled_dot_product_attention, by flex_attention, or by a softmax written out between two products. In train and eval mode,
with and without gradients, under autocast, in half precision (maps are float32), with checkpointing, from several threads
(one that has entered a context of its own is heard by that alone). Nothing is hung on the model: a copy of it made meanwhile
is an ordinary model.

The output is the same bit for bit, except with keep_grad=True, and where PyTorch would have taken a fused path for inference
or run compiled code (there it is the same within rounding): these keep no weights, so they are left while the context is
open. With the fused path go its peculiarities: an is_causal hint without a mask is an error again, and fully masked rows
give what the slow path gives.

What cannot be seen (kernels of flash-attn or xformers, scripted modules) is named in `maps.skipped` and by a warning, and a
model that ran without a recorded call is an error. PyTorch 2.4 to 2.14; compiled models and flex_attention from 2.6.
Letters: B batch, L queries, S keys, E embed_dim, H heads, D = E // H.
Source: torch 2.13's nn/functional.py (multi_head_attention_forward), nn/modules/transformer.py, nn/modules/module.py.
"""

import inspect
import math
import sys
import threading
import warnings
from collections import Counter, OrderedDict
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext
from torch.utils.weak import WeakTensorKeyDictionary


class Maps(dict):
    """Name of a module -> its weights, in the order of the first calls.

    (B, H, L, S), or (H, L, S) where the input was unbatched; a softmax written out keeps the leading axes that it had. A
    module that attended several times has a list of them, in call order; `maps.calls(name)` is a list in either case.
    `maps.seen` and `maps.skipped` count, sentence by sentence, what was taken for attention, and what was not and why.
    """

    def __init__(self):
        super().__init__()
        self.seen, self.skipped = Counter(), Counter()
        self.lock = threading.Lock()

    def calls(self, name: str) -> list[Tensor]:
        found = self[name]
        return found if isinstance(found, list) else [found]

    def add(self, name: str, weights: Tensor, last: bool = False) -> None:
        with self.lock:
            known = self.calls(name) if name in self and not last else []
            self[name] = [*known, weights] if known else weights

    def __missing__(self, name):
        seen = ", ".join(map(repr, self)) or "nothing"
        raise KeyError(f"no call of {name!r} was recorded, only {seen}")

    def __reduce__(self):  # to a file as what torch.load knows
        return OrderedDict, (), None, None, iter(self.items())


class attention_weights:
    """Context that records the weights of every head of a model.

    layers: only these: a pattern of names ("*.layers.11"), a module, or a collection of either; all inside them is meant, too.
    last: of a module that attends several times, the last call only.
    queries: only these rows of each map, as an index: [0], slice(-1, None).
    before_dropout: in training, the softmax itself and not what dropout left of it (whose rows do not sum to 1).
    keep_grad: maps keep their graph, down to parameters and inputs, and stand in that of the output, which is then computed
        from them: the same within rounding, and with a gradient with respect to each map.
    cpu, dtype: copies on the CPU, in this precision.
    softmax: modules, as in layers, whose every softmax is to be recorded, for where attention cannot be told from it.
    Raises RuntimeError at its end if the model ran and no attention was seen.
    """

    def __init__(
        self, model, *, layers="*", last=False, queries=None, before_dropout=False, keep_grad=False, cpu=False, dtype=None,
        softmax=(),
    ):  # fmt: skip
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise TypeError(f"model: expected an nn.Module, got {kind}")
        if not hasattr(torch.compiler, "set_stance") and any(map(is_compiled, model.modules())):
            raise RuntimeError("model: a compiled model runs as it was written from PyTorch 2.6 on: take it uncompiled")
        if keep_grad and not (queries is None and dtype is None):
            raise ValueError("keep_grad: expected no queries= and no dtype=, for the output is computed from whole maps")
        self.model = model
        self.options = SimpleNamespace(
            layers=inside(model, "layers", layers), last=last, queries=queries, before_dropout=before_dropout,
            keep_grad=keep_grad, device="cpu" if cpu else None, dtype=dtype, softmax=inside(model, "softmax", softmax),
        )  # fmt: skip
        self.open = []  # one recorder for each time it was entered

    # --8<-- [start:enter]
    def __enter__(self) -> Maps:
        uncompiled.enter()
        self.open.append(Recorder(self.model, self.options))
        return self.open[-1].maps

    def __exit__(self, *exception) -> None:
        recorder = self.open.pop()
        recorder.close()
        uncompiled.leave()
        if exception[0] is None:
            recorder.report()
    # --8<-- [end:enter]


def inside(model, option: str, wanted) -> set[str]:
    """Names of the modules that are meant, and of all inside them."""
    wanted = [wanted] if isinstance(wanted, (str, nn.Module)) else list(wanted)
    names, found = set(), set()
    for name, module in model.named_modules():
        hits = {i for i, w in enumerate(wanted) if (fnmatch(name, w) if isinstance(w, str) else w is module)}
        found |= hits
        around = {name[:i] for i, letter in enumerate(name) if letter == "."} | {""}
        if hits or (around & names):
            names.add(name)
    for i, w in enumerate(wanted):
        if i not in found:
            got = w if isinstance(w, str) else type(w).__name__
            raise ValueError(f"{option}: expected names or modules in model.named_modules(), got {got!r}")
    return names


class Uncompiled:
    """While a context is open, compiled models run as they were written: a process has one such switch."""

    def __init__(self):
        self.open, self.stance, self.lock = 0, None, threading.Lock()

    def enter(self) -> None:
        with self.lock:
            self.open += 1
            # who has neither of these has compiled nothing; the switch would import the first, which takes a second
            compilers = {"torch._dynamo", "torch.nn.attention.flex_attention"} & sys.modules.keys()
            if compilers and not self.stance and hasattr(torch.compiler, "set_stance"):
                self.stance = torch.compiler.set_stance("force_eager")

    def leave(self) -> None:
        with self.lock:
            self.open -= 1
            if self.stance and not self.open:
                self.stance.__exit__(None, None, None)
                self.stance = None


uncompiled = Uncompiled()

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


class Frame(NamedTuple):
    """A forward that is running."""

    module: nn.Module
    name: str
    heard: bool  # whether the mode was on before it began
    leading: tuple  # (B, H) or (H,) of an nn.MultiheadAttention, else ()
    nested: list  # maps of a batch that this encoder has nested


class Mark(NamedTuple):
    """What is known of a tensor on its way to a map."""

    kind: str  # "scores", "bent" (without a softmax) or "weights"
    axis: int = -1  # that the softmax was taken over
    shape: tuple = ()  # as the softmax left it, keys last
    proven: bool = False  # a softmax of products of queries and keys
    note: str = ""  # what is said of it until it meets values
    whole: Tensor | None = None  # before dropout


class Here(threading.local):
    """What is running on this thread."""

    def __init__(self):
        self.frames = []
        self.forget()
        self.on, self.place = False, 0  # whether the mode is on, and how far from the bottom of all modes

    def forget(self) -> None:
        self.marks = WeakTensorKeyDictionary()
        self.packed = WeakTensorKeyDictionary()  # queries whose heads stand as rows -> how many heads they are


OPEN = []  # all recorders of the process


class Recorder(TorchFunctionMode):
    """One open context: while a forward of the model runs, it hears what PyTorch is asked for.

    Hooks that are common to all modules tell which forward is running, and turn the mode on, on the thread that runs it.
    While a mode is on, PyTorch's layers take no fused path.
    """

    def __init__(self, model, options):
        super().__init__()
        self.model, self.options, self.maps, self.here = model, options, Maps(), Here()
        self.names = {id(module): name for name, module in model.named_modules()}
        self.ran, self.closed, self.loud, self.otherwise = False, False, set(), set()
        self.thread = threading.get_ident()
        self.level, self.fake = vmap_level(), torch._guards.detect_fake_mode() is not None
        self.handles = [
            register_module_forward_pre_hook(self.before),
            register_module_forward_hook(self.after, always_call=True),
        ]
        OPEN.append(self)

    # --8<-- [start:hooks]
    def before(self, module, args) -> None:
        if id(module) not in self.names or self.anothers(module):
            return
        name, here, self.ran = self.names[id(module)], self.here, True
        mha = isinstance(module, nn.MultiheadAttention)
        query = args[0] if mha and args else None
        # only the fused path takes what is nested
        nested = isinstance(query, Tensor) and query.is_nested
        leading = () if nested else axes(query, module)
        if not here.frames:
            here.place = place_of_a_mode()
        here.frames.append(Frame(module, name, here.on, leading, []))
        self.listen(not (nested or nests(module)))
        if isinstance(module, torch.jit.ScriptModule):
            self.skip("a scripted module, not seen into", loud=True)

    def after(self, module, args, result) -> None:
        frames = self.here.frames
        if all(frame.module is not module for frame in frames):
            return  # it failed before it came to us
        while frames[-1].module is not module:
            self.listen(frames.pop().heard)  # KeyboardInterrupt left it
        if result is not None:  # it did not fail
            self.unnest(frames[-1], args, result)
        self.listen(frames.pop().heard)
        if not frames:
            self.here.forget()
    # --8<-- [end:hooks]

    def anothers(self, module) -> bool:
        """Whether the call belongs to a context of the thread that makes it; a thread without one is everybody's."""
        thread = threading.get_ident()
        return thread != self.thread and any(r.thread == thread and id(module) in r.names for r in tuple(OPEN))

    def listen(self, on: bool) -> None:
        """Be below the modes that others enter, to hear what really runs; or be none of the thread's modes."""
        if on == self.here.on:
            return
        modes = _get_current_function_mode_stack()
        for _ in modes:
            _pop_mode()
        modes = [mode for mode in modes if mode is not self]
        modes[self.here.place : self.here.place] = [self] * on
        for mode in modes:
            _push_mode(mode)
        self.here.on = on

    def close(self) -> None:
        self.closed = True
        OPEN.remove(self)
        for handle in self.handles:
            handle.remove()
        self.listen(False)  # KeyboardInterrupt skips forward hooks
        self.here.frames.clear()

    # --8<-- [start:nested]
    def unnest(self, frame: Frame, args, result) -> None:
        """Maps of a nested batch, in the size it had before nesting.

        (B, H, longest, longest) -> (B, H, L, L), 0 where padding was.
        """
        kind = "nn.MultiheadAttention"
        for name, weights in frame.nested:  # the encoder ends
            length = None if result.is_nested else result.shape[1]
            more = (length or weights.shape[-1]) - weights.shape[-1]
            weights = F.pad(weights, (0, more, 0, more))
            self.add(name, kind, self.shaped(weights))
        mha = isinstance(frame.module, nn.MultiheadAttention)
        if not mha or self.here.on or not self.wanted():
            return
        # what nests attends to itself, without a mask
        ask = {"need_weights": True, "average_attn_weights": False}
        with torch._C.DisableTorchFunction():
            weights = frame.module.forward(*args[:1] * 3, **ask)[1]
        encoders = [f for f in self.here.frames if nests(f.module)]
        if encoders:
            encoders[-1].nested.append((frame.name, weights))
        else:
            self.add(frame.name, kind, self.shaped(weights))
    # --8<-- [end:nested]

    def wanted(self) -> bool:
        return not self.closed and bool(self.here.frames) and self.here.frames[-1].name in self.options.layers

    # --8<-- [start:functions]
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.wanted():
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self.multi_head(*args, **kwargs)
        name = name_of(func)
        if name in HEARD:
            return HEARD[name](self, func, *args, **kwargs)
        if "attention" in name or "attn" in name:
            why = f"{name}, a kernel that hands out no weights"
            self.skip(why, loud=True)
        result = func(*args, **kwargs)
        if name in FOLLOWED and len(self.here.marks):
            self.follow(name, func, args, kwargs, result)
        if name in ("reshape", "view"):
            self.pack(first(args, kwargs), result)
        return result

    def multi_head(self, query, key, value, E, H, *args, **kwargs):
        """PyTorch's own function, heard from inside."""
        frames = self.here.frames
        leading = (query.shape[1], H) if query.dim() == 3 else (H,)
        frames.append(frames[-1]._replace(module=None, leading=leading))
        try:
            with self:
                return BODY(query, key, value, E, H, *args, **kwargs)
        finally:
            frames.pop()
    # --8<-- [end:functions]

    # --8<-- [start:attend]
    def attend(
        self, func, query, key, value, attn_mask=None, dropout_p=0.0,
        is_causal=False, **more,
    ):  # fmt: skip
        """SDPA as it was called, with the weights recomputed."""
        call = attn_mask, dropout_p, is_causal
        plain = partial(func, query, key, value, *call, **more)
        try:
            with self.unheard():
                weights = recomputed(query, key, *call, **more)
            if dropout_p and not self.options.before_dropout:
                left = fallen(func, query, key, value, *call, **more)
                weights = weights * left / (1 - dropout_p)
        except (RuntimeError, ValueError) as error:
            result = plain()  # raises what PyTorch says, or works
            self.skip(f"SDPA, not recomputed ({error})", loud=True)
            return result
        rows = self.unpacked(query, key, weights)
        self.compare(query, attn_mask)
        kept = self.keep("scaled_dot_product_attention", rows)
        if not self.options.keep_grad:
            return plain()
        if dropout_p:  # its random numbers are drawn all the same
            with torch.no_grad():
                plain()
        return weighted(kept, weights, as_autocast(value))
    # --8<-- [end:attend]

    def compare(self, query, attn_mask) -> None:
        """Say where the fast path, which is left, would have given another answer than a last digit (PyTorch 2.4 to 2.14).

        An nn.TransformerEncoderLayer hides every key whose float is not 0 on it, and a row that sees nothing is NaN.
        """
        frames = self.here.frames
        layers = [f for f in frames if isinstance(f.module, nn.TransformerEncoderLayer)]
        if not layers or attn_mask is None or self.fake or vmap_level(attn_mask) or len(frames[-1].leading) != 2:
            return
        asks = torch.is_grad_enabled() and (query.requires_grad or any(p.requires_grad for p in layers[-1].module.parameters()))
        if asks or not fused(layers[-1].module):
            return
        hides = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask < LOWEST
        if hides.all(-1).any():
            self.otherwise.add(f"a row of {layers[-1].name!r} that sees nothing is NaN")
        if attn_mask.dtype != torch.bool and ((attn_mask != 0) & ~hides).any():
            self.otherwise.add(f"the float mask of {layers[-1].name!r} hides every key whose float is not 0")

    def pack(self, before, after) -> None:
        """Remember how many heads became rows."""
        if packs(before, after):
            self.here.packed[after] = before.shape[1]

    def unpacked(self, query, key, weights: Tensor) -> Tensor:
        """Of one token whose H heads were packed into the rows of K: (B, K, H / K, S) -> (B, H, 1, S)."""
        heads = self.here.packed.get(query)
        if heads is None or key in self.here.packed:  # queries and keys alike: a single head, whose tokens these are
            return weights
        return weights.reshape(len(weights), heads, 1, -1)

    def unheard(self):
        """No graph, and nothing that another context hears; unless the output is computed from it."""
        return nullcontext() if self.options.keep_grad else quiet()

    def flex(self, func, query, key, value, *args, **kwargs):
        """flex_attention: with the identity for values, what comes out is the weights."""
        exact = torch.promote_types(query.dtype, torch.float32)
        eye = torch.eye(key.shape[-2], dtype=exact, device=key.device).expand(*key.shape[:-1], -1)
        with self.unheard():
            weights = func(query.to(exact), key.to(exact), eye, *args, **kwargs)[0]
        kept = self.keep("flex_attention", weights)
        out, *rest = func(query, key, value, *args, **kwargs)
        return (weighted(kept, weights, value) if self.options.keep_grad else out), *rest

    # A softmax written out is attention if its input was made, number by number, of a product of two tensors that are no
    # parameters, and if what was made of it is multiplied by a third, over the axis that the softmax was taken over.

    def soften(self, func, *args, **kwargs):
        """A softmax. Nothing says yet that it is attention."""
        result = func(*args, **kwargs)
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        if axis is None or not result.dim():
            return result
        axis -= result.dim() if axis >= 0 else 0
        mark = Mark("weights", axis, result.movedim(axis, -1).shape)
        if self.here.frames[-1].name in self.options.softmax:
            kept = self.keep("softmax, as you said", facing(result, mark), own=True)
            return back(kept, result, mark) if self.options.keep_grad else result
        scores = self.mark_of(first(args, kwargs))
        proven = scores is not None and scores.kind == "scores"
        note = self.skip(UNUSED[proven], loud=proven or (result.dim() > 3 and axis == -1))  # (B, H, L, S) looks like it
        self.here.marks[result] = mark._replace(proven=proven, note=note)
        return result

    def drop(self, func, *args, **kwargs):
        source = first(args, kwargs)
        mark = self.mark_of(source)
        if mark is None or mark.kind != "weights":
            return func(*args, **kwargs)
        if self.options.before_dropout:
            mark = mark._replace(whole=self.shaped(facing(source, mark), own=True))
            if self.options.keep_grad:
                args, kwargs = swapped(args, kwargs, source, back(mark.whole, source, mark))
        result = func(*args, **kwargs)
        self.here.marks[result] = mark
        return result

    def multiply(self, func, *args, **kwargs):
        """A product: of queries and keys, of weights and values, or of neither."""
        operands, summed_over = product(name_of(func), [*args, *kwargs.values()])
        marks = [self.mark_of(operand) for operand in operands]
        for operand, mark, over in zip(operands, marks, summed_over, strict=True):
            if mark is None or mark.axis not in over or (mark.kind == "scores" and any(map(is_parameter, operands))):
                continue
            if mark.kind in ("scores", "bent"):
                self.skip(BENT if mark.kind == "bent" else BARE, loud=mark.kind == "bent")
                break
            self.maps.skipped[mark.note] -= 1
            if not mark.proven:
                self.skip(UNPROVEN, loud=True)
            elif mark.whole is not None:
                self.add(self.here.frames[-1].name, "softmax", mark.whole)
            else:
                kept = self.keep("softmax", facing(operand, mark), own=True)
                if self.options.keep_grad:
                    args, kwargs = swapped(args, kwargs, operand, back(kept, operand, mark))
            break
        result = func(*args, **kwargs)
        if operands and not any(marks) and not any(map(is_parameter, operands)):
            self.here.marks[result] = Mark("scores")
        return result

    def follow(self, name: str, func, args, kwargs, result) -> None:
        """Hand a mark on to what was made of its tensor."""
        for source in flat([*args, *kwargs.values()]):
            mark = self.mark_of(source)
            if mark is None or not isinstance(result, Tensor):
                continue
            if name in BENDS and mark.kind == "scores":
                mark = mark._replace(kind="bent")
            elif mark.kind == "weights" and name in TURNS:  # where does a tensor of this shape go?
                ones = [1 + (i == source.dim() + mark.axis) for i in range(source.dim())]
                places, names = swapped(args, kwargs, source, torch.empty(ones, device="meta"))
                turned = func(*places, **names).shape
                mark = mark._replace(axis=list(turned).index(2) - len(turned), shape=())
            elif mark.kind == "weights" and name in CUTS and result.dim() == source.dim():
                mark = mark._replace(shape=result.movedim(mark.axis, -1).shape)
            elif mark.kind == "weights" and result.shape[mark.axis :] != source.shape[mark.axis :]:
                continue
            self.here.marks[result] = mark
            return

    def mark_of(self, tensor) -> Mark | None:
        return self.here.marks.get(tensor) if isinstance(tensor, Tensor) else None

    def keep(self, how: str, weights: Tensor, own: bool = False) -> Tensor:
        """Into the maps; returns what they hold, which stands in the graph."""
        kept = self.shaped(weights, own)
        self.add(self.here.frames[-1].name, how, kept)
        return kept

    def shaped(self, weights: Tensor, own: bool = False) -> Tensor:
        """The weights as maps hold them. own: they are the model's, which may go on to change them."""
        leading = self.here.frames[-1].leading
        if leading and weights.shape[:-2].numel() == math.prod(leading):  # (B * H, L, S) or (1, H, L, S)
            weights = weights.reshape(*leading, *weights.shape[-2:])
        dtype = self.options.dtype or torch.promote_types(weights.dtype, torch.float32)
        if self.options.keep_grad:
            return weights.to(self.options.device, dtype)
        if self.options.queries is not None:
            weights, own = weights[..., self.options.queries, :], True
        return weights.detach().to(self.options.device, dtype, copy=own)

    def add(self, name: str, how: str, weights: Tensor) -> None:
        if vmap_level(weights) > self.level or (type(weights).__name__ == "FakeTensor" and not self.fake):
            raise RuntimeError(
                f"{name!r}: its weights live inside torch.vmap or an export that began after the context was entered: "
                "enter the context inside the function that is mapped or exported, and return the maps from it"
            )
        if torch._C._current_graph_task_id() != -1:
            self.skip(f"{how}, that ran again in the backward pass (checkpointing)")
        else:
            self.maps.seen[f"{name!r}: {how}"] += 1
            self.maps.add(name, weights, self.options.last)

    def skip(self, why: str, loud: bool = False) -> str:
        sentence = f"{self.here.frames[-1].name!r}: {why}"
        self.maps.skipped[sentence] += 1
        if loud:
            self.loud.add(sentence)
        return sentence

    def report(self) -> None:
        """No map is missing without a word."""
        kind = type(self.model).__name__
        self.maps.skipped = +self.maps.skipped  # what was taken after all is at 0
        if not self.ran:
            warnings.warn(
                f"{kind}: nothing was recorded, for no forward of it ran while the context was open. Call the model itself, "
                "model(x): not model.forward, and no copy, script or export of it", stacklevel=3,
            )  # fmt: skip
        elif not self.maps:
            where = "it" if "" in self.options.layers else "layers="
            others = "; ".join(self.maps.skipped) or "nothing"
            raise RuntimeError(
                f"{kind}: it ran, and no attention was seen in {where}. Not taken for attention: {others}. Was it called "
                f"itself, as model(x)? {ADVICE}"
            )
        if self.otherwise:
            warnings.warn(
                f"{kind}: the output is not the one without recording. On PyTorch's fast path, which recording leaves, "
                f"{', and '.join(sorted(self.otherwise))}. torch.backends.mha.set_fastpath_enabled(False) leaves it always",
                stacklevel=3,
            )  # fmt: skip
        if self.maps and (loud := self.loud & self.maps.skipped.keys()):
            warnings.warn(f"{kind}: recorded in part. Not taken: {'; '.join(sorted(loud))}. {ADVICE}", stacklevel=3)


LOWEST = -1e4  # a float below it hides as minus infinity does
UNUSED = (
    "a softmax that no product with values was seen to use",
    "a softmax of products of queries and keys, that no product with values was seen to use",
)
UNPROVEN = "a softmax that values are multiplied by, of what was not seen to be products of queries and keys"
BARE = "a product of two tensors that a third is multiplied by, as in linear attention, without a softmax"
BENT = "products of queries and keys that values are multiplied by, without a softmax"
ADVICE = (
    "softmax='name of the module' takes every softmax there; kernels of other packages hand out no weights: let the model "
    "call F.scaled_dot_product_attention instead (Hugging Face: attn_implementation='sdpa')"
)

HEARD = {
    "scaled_dot_product_attention": Recorder.attend,
    "flex_attention": Recorder.flex,
    **dict.fromkeys(["softmax", "special_softmax"], Recorder.soften),
    "dropout": Recorder.drop,
    **dict.fromkeys(["matmul", "bmm", "mm", "baddbmm", "einsum"], Recorder.multiply),
}
# what changes numbers one by one, keeps them or moves them
TURNS = {"transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "adjoint"}
CUTS = {"cat", "concat", "getitem", "narrow", "pad"}
BENDS = {"exp", "sigmoid", "relu", "softplus"}
FOLLOWED = TURNS | CUTS | BENDS | {
    "add", "sub", "rsub", "mul", "div", "true_divide", "tanh", "where", "masked_fill", "nan_to_num", "clamp", "clamp_min",
    "triu", "tril", "to", "type", "type_as", "float", "half", "double", "bfloat16", "contiguous", "clone", "view", "reshape",
    "flatten", "unflatten", "unsqueeze", "squeeze", "expand",
}  # fmt: skip


def name_of(func) -> str:
    """torch.softmax, Tensor.softmax, F.softmax, aten.softmax.int -> softmax; Tensor.mT.__get__ -> mT; add_ -> add"""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func.__self__, "__name__", "")
    return name.split(".")[0].strip("_")


def flat(arguments) -> list:
    return [a for given in arguments for a in (given if isinstance(given, (list, tuple)) else [given])]


def first(args, kwargs):
    """The tensor that a function of one tensor is given, by place or by name."""
    return args[0] if args else kwargs.get("input")


def swapped(args, kwargs, old, new):
    """The arguments of a call with one tensor in place of another."""

    def put(given):
        return new if given is old else [put(a) for a in given] if isinstance(given, (list, tuple)) else given

    return put(args), {name: put(given) for name, given in kwargs.items()}


def product(name: str, arguments) -> tuple[list, list]:
    """The two operands of a product, and of each the axes, counted from the end, that are summed over."""
    tensors = [t for t in flat(arguments) if isinstance(t, Tensor)]
    if name != "einsum":  # baddbmm has a third in front
        return tensors[-2:], [{-1}, {-2 if tensors[-1].dim() > 1 else -1}]
    if not isinstance(arguments[0], str) or len(tensors) != 2:
        return [], []
    ins, _, out = arguments[0].replace(" ", "").partition("->")
    sides = [letters.split("...")[-1] for letters in ins.split(",")]
    both = set(sides[0]) & set(sides[1]) - set(out)
    return tensors, [{i - len(side) for i, letter in enumerate(side) if letter in both} for side in sides]


def facing(weights: Tensor, mark: Mark) -> Tensor:
    """Keys last, and otherwise in the shape in which they left the softmax."""
    weights = weights.movedim(mark.axis, -1)
    fits = mark.shape and weights.numel() == torch.Size(mark.shape).numel()
    return weights.reshape(mark.shape) if fits else weights


def back(kept: Tensor, weights: Tensor, mark: Mark) -> Tensor:
    """What a map holds, in the shape and place of the weights that it was made of."""
    return kept.to(weights).reshape(weights.movedim(mark.axis, -1).shape).movedim(-1, mark.axis)


def weighted(kept: Tensor, weights: Tensor, value: Tensor) -> Tensor:
    """Values weighted by what the maps hold: (..., L, S), (..., S, D) -> (..., L, D)."""
    weights = kept.to(weights).reshape(weights.shape)
    if value.dim() > 2 and value.shape[-3] not in (1, weights.shape[-3]):  # grouped queries
        value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], -3)
    with no_autocast(value):
        return (weights @ value.to(weights)).to(value.dtype)


def packs(before, after) -> bool:
    """(B, H, 1, D) -> (B, K, H / K, D): one token, whose groups of heads become rows of the head that they share."""
    if not (isinstance(before, Tensor) and isinstance(after, Tensor) and before.dim() == after.dim() == 4):
        return False
    (B, H, L, D), (B_after, K, rows, D_after) = before.shape, after.shape
    return L == 1 < rows and (B_after, K * rows, D_after) == (B, H, D)


def is_parameter(tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)


def is_compiled(module) -> bool:
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


def fused(layer) -> bool:
    """Whether PyTorch runs the nn.TransformerEncoderLayer as one, where nothing asks for gradients and nobody listens."""
    attention = layer.self_attn
    return (
        not layer.training and torch.backends.mha.get_fastpath_enabled() and attention.batch_first
        and attention._qkv_same_embed_dim and attention.in_proj_bias is not None and attention.num_heads % 2 == 0
        and bool(layer.activation_relu_or_gelu) and layer.norm1.eps == layer.norm2.eps
        and not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
    )  # fmt: skip


def nests(module) -> bool:
    """Whether it may pack a padded batch into a nested tensor, which it does not while a mode is on."""
    return isinstance(module, nn.TransformerEncoder) and type(module).forward is nn.TransformerEncoder.forward


def axes(query, mha) -> tuple:
    """(B, H) or (H,), as an nn.MultiheadAttention returns a map of this query; () where that cannot be told."""
    if not isinstance(query, Tensor) or query.dim() not in (2, 3):
        return ()
    return (mha.num_heads,) if query.dim() == 2 else (query.shape[0 if mha.batch_first else 1], mha.num_heads)


def place_of_a_mode() -> int:
    """The lowest but for a default device, which wants to be that itself."""
    modes = _get_current_function_mode_stack()
    return int(bool(modes) and isinstance(modes[0], DeviceContext))


def vmap_level(tensor=None) -> int:
    """The depth of torch.vmap and its like: of this moment, or of a tensor that lives inside one."""
    functorch = torch._C._functorch
    if tensor is not None:
        return functorch.maybe_get_level(tensor) if functorch.is_batchedtensor(tensor) else 0
    running = functorch.peek_interpreter_stack()
    return running.level() if running else 0


@contextmanager
def quiet():
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield


def no_autocast(tensor):
    return torch.autocast("cpu" if tensor.is_meta else tensor.device.type, enabled=False)


def as_autocast(tensor):
    """What autocast makes of an argument of SDPA."""
    device = "cpu" if tensor.is_meta else tensor.device.type
    if tensor.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def recomputed(query, key, attn_mask, dropout_p, is_causal, **more) -> Tensor:
    """The weights of a call of SDPA, before dropout."""
    if query.is_nested or key.is_nested:
        raise ValueError("nested tensors")
    if is_causal and attn_mask is not None:  # a kernel for CPUs takes both
        attn_mask, is_causal = causal(attn_mask, query, key), False
    return sdpa_weights(as_autocast(query), as_autocast(key), attn_mask, is_causal=is_causal, **more)


def fallen(func, query, key, value, *call, **more) -> Tensor:
    """What dropout will leave, True or False: (..., L, S).

    It depends on the state of the generator and on the kernel, and not on the values: columns of the identity show it.
    """
    S, D = value.shape[-2:]
    eye = torch.eye(S, S + -S % D, dtype=value.dtype, device=value.device)
    gpus = [query.device] if query.is_cuda else []
    parts = []
    for part in eye.split(D, -1):
        with torch.random.fork_rng(gpus), torch._C.DisableTorchFunction():
            parts.append(func(query, key, part.expand(*value.shape[:-1], D).contiguous(), *call, **more).detach())
    return torch.cat(parts, -1)[..., :S] != 0


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
    if hasattr(attn_mask, "_materialize"):  # torch.nn.attention.bias
        attn_mask = attn_mask._materialize(query.device)
    if is_causal:
        attn_mask = causal(None, query, key)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return masked_softmax(query, key, attn_mask, scale)
# --8<-- [end:sdpa_weights]


def causal(attn_mask, query, key) -> Tensor:
    """No query sees a key behind its own place, whatever else the mask says: (..., L, S)."""
    seen = query.new_ones(query.shape[-2], key.shape[-2]).tril().bool()
    if attn_mask is None:
        return seen
    return attn_mask & seen if attn_mask.dtype == torch.bool else attn_mask.masked_fill(~seen, -torch.inf)


# --8<-- [start:masked_softmax]
def masked_softmax(query, key, attn_mask, scale: float) -> Tensor:
    exact = torch.promote_types(query.dtype, torch.float32)
    with no_autocast(query):  # scaled before the product: no overflow
        query, key = query.to(exact) * scale, key.to(exact)
        scores = query @ key.transpose(-2, -1)
    if attn_mask is None:
        return scores.softmax(-1)
    # before the softmax too, or gradients are NaN
    if attn_mask.dtype == torch.bool:
        blind = ~attn_mask.any(-1, keepdim=True)
        hidden = ~(attn_mask | blind)
        scores = scores.masked_fill(hidden, -torch.inf)
    else:
        blind = (attn_mask == -torch.inf).all(-1, keepdim=True)
        scores = scores + attn_mask.masked_fill(blind, 0)
    weights = scores.softmax(-1)
    del scores  # no more memory than a map needs
    return weights.masked_fill(blind, 0)
# --8<-- [end:masked_softmax]
