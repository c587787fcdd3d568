# --8<-- [start:setup]
import inspect
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(29)
B, L, S, E, H = 2, 5, 7, 24, 4
D, kdim, vdim = E // H, 10, 14
mha = nn.MultiheadAttention(
    E, H, kdim=kdim, vdim=vdim, batch_first=True
).double()
query = torch.randn(B, L, E, dtype=torch.float64)
key = torch.randn(B, S, kdim, dtype=torch.float64)
value = torch.randn(B, S, vdim, dtype=torch.float64)
# --8<-- [end:setup]

# --8<-- [start:signatures]
# name and default of each argument, as PyTorch has it
made = inspect.signature(nn.MultiheadAttention).parameters
called = inspect.signature(mha.forward).parameters
for parameter in (*made.values(), *called.values()):
    default = parameter.default
    needed = default is inspect.Parameter.empty
    print(f"{parameter.name:21}{'' if needed else default}")
# --8<-- [end:signatures]

# --8<-- [start:returned]
output, mean = mha(query, key, value)
_, weights = mha(query, key, value, average_attn_weights=False)
same, nothing = mha(query, key, value, need_weights=False)
print(tuple(output.shape), tuple(mean.shape), tuple(weights.shape))
torch.testing.assert_close(weights.mean(1), mean)
torch.testing.assert_close(same, output)
print(nothing)
# --8<-- [end:returned]
assert (output.shape, mean.shape, weights.shape) == ((B, L, E), (B, L, S), (B, H, L, S))  # guard: shapes_returned
assert nothing is None  # guard: no_weights_without_being_asked

# The tables: every name and default is read off, so a PyTorch that has others ends the build.
assert [*made] == [  # guard: arguments_of_the_module
    "embed_dim", "num_heads", "dropout", "bias", "add_bias_kv", "add_zero_attn",
    "kdim", "vdim", "batch_first", "device", "dtype",
]  # fmt: skip
assert [*called] == [  # guard: arguments_of_the_call
    "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal",
]  # fmt: skip
for name, parameter in (made | called).items():
    if parameter.default is not inspect.Parameter.empty:
        show(name, str(parameter.default))
schema = torch.ops.aten.scaled_dot_product_attention.default._schema
assert [one.name for one in schema.arguments] == [  # guard: arguments_of_the_function
    "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
]  # fmt: skip
for one in schema.arguments[3:]:
    show(f"sdpa_{one.name}", str(one.default_value))


def taken(module, *inputs, **given):
    try:
        return module(*inputs, **given)[0].shape
    except (AssertionError, RuntimeError):
        return None


# shapes: with the batch in front, with it second (the default), and without one
turned = nn.MultiheadAttention(E, H, kdim=kdim, vdim=vdim).double()
alone = [tensor[0] for tensor in (query, key, value)]
second = [tensor.transpose(0, 1) for tensor in (query, key, value)]
assert taken(mha, query, key, value) == (B, L, E)  # guard: batch_in_front
assert taken(turned, *second) == (L, B, E)  # guard: batch_second
assert [taken(module, *alone) for module in (mha, turned)] == [(L, E), (L, E)]  # guard: no_batch
assert taken(mha, *second) == taken(turned, query, key, value)  # guard: the_other_way_is_refused_where_lengths_differ
square = torch.randn(B, L, E, dtype=torch.float64)
plain = nn.MultiheadAttention(E, H, batch_first=True).double()
assert taken(plain, square.transpose(0, 1), *[square.transpose(0, 1)] * 2) == (L, B, E)  # guard: and_taken_where_they_do_not
# what each argument of the module needs
try:
    nn.MultiheadAttention(E, 5)
except AssertionError as error:
    show("heads_refused", str(error))
else:
    raise AssertionError("a width that no head has")
names = [name for name, _ in nn.MultiheadAttention(E, H, add_bias_kv=True).named_parameters()]
assert {"bias_k", "bias_v"} <= set(names)  # guard: bias_kv_are_parameters
_, longer = nn.MultiheadAttention(E, H, add_zero_attn=True, add_bias_kv=True)(*[torch.randn(L, E)] * 3)
assert longer.shape == (L, L + 2)  # guard: a_key_more_for_each
assert taken(mha, query, key, value, key_padding_mask=torch.zeros(B, S).bool()) == (B, L, E)  # guard: padding_is_b_s
assert taken(mha, query, key, value, key_padding_mask=torch.zeros(B, L).bool()) is None  # guard: padding_is_not_b_l
masks = [torch.zeros(shape).bool() for shape in ((L, S), (B * H, L, S), (B, L, S))]
assert [taken(mha, query, key, value, attn_mask=mask) for mask in masks] == [(B, L, E), (B, L, E), None]  # guard: masks_taken
# is_causal is a hint: alone it is refused
assert taken(mha, query, key, value, is_causal=True) is None  # guard: is_causal_needs_its_mask
# the function: dropout without being asked, scale, and heads of keys
same_q = torch.randn(B, H, L, D, dtype=torch.float64)
kept, dropped = (F.scaled_dot_product_attention(same_q, same_q, same_q, dropout_p=p) for p in (0.0, 0.5))
assert not torch.allclose(kept, dropped)  # guard: dropout_p_knows_no_evaluation
q = torch.randn(B, H, L, D, dtype=torch.float64)
k, v = torch.randn(2, B, H // 2, S, D, dtype=torch.float64)
by_name = F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)
k, v = (part.repeat_interleave(2, 1) for part in (k, v))
torch.testing.assert_close(by_name, (q @ k.mT * 0.3).softmax(-1) @ v)  # guard: scale_and_grouped_heads
torch.testing.assert_close(  # guard: scale_by_default
    F.scaled_dot_product_attention(q, k, v), (q @ k.mT / D**0.5).softmax(-1) @ v)
