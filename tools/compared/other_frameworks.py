"""Keras (on PyTorch), Flax, Equinox, Haiku, MLX, ONNX Runtime."""

import os

os.environ |= {"KERAS_BACKEND": "torch", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

import numpy as np

from tools.absent import standing_in
from tools.compared import B, Case, D, E, H, S, as_tensor, compared, data

BESIDE_FLAX = ("orbax", "tensorstore", "etils", "treescope")  # files and pictures
SINGLE = 1e-5  # float32 inside


def drawn(shape, generator):
    return generator.normal(size=shape) * 0.5


def keras_layer(make, keys=None):
    import keras

    keras.config.set_floatx("float64")
    layer, y, generator = make(keras.layers), data(B, S, E, seed=2).numpy(), np.random.default_rng(0)
    layer(data().numpy(), y)
    for weight in layer.weights:
        weight.assign(drawn(weight.shape, generator))
    output, weights = layer(data().numpy(), y, return_attention_scores=True)
    state = {"/".join(one.path.split("/")[-2:]): as_tensor(one.value) for one in layer.weights}
    return Case(state, as_tensor(output), as_tensor(weights), y=y, keys=keys, bound=SINGLE)


@compared("Keras", package="keras")
def keras():
    return keras_layer(lambda layers: layers.MultiHeadAttention(H, D))


@compared("Keras, grouped", package="keras")
def keras_grouped():
    return keras_layer(lambda layers: layers.GroupQueryAttention(D, H, 2), keys=2)


def jax_drawn(tree):
    import jax

    generator = np.random.default_rng(0)
    return jax.tree.map(lambda one: jax.numpy.asarray(drawn(one.shape, generator)), tree)


@compared("Flax linen", package="flax")
def flax_linen():
    import jax

    with standing_in(*BESIDE_FLAX):
        import flax.linen

    x, y = data().numpy(), data(B, S, E, seed=2).numpy()
    double = jax.numpy.float64
    layer = flax.linen.MultiHeadDotProductAttention(
        num_heads=H, qkv_features=E, out_features=E, param_dtype=double, dtype=double
    )
    parameters = jax_drawn(layer.init(jax.random.key(0), x, y))["params"]
    output, left = layer.apply({"params": parameters}, x, y, sow_weights=True, mutable=["intermediates"])
    state = {f"{name}/{kind}": as_tensor(one) for name, both in parameters.items() for kind, one in both.items()}
    return Case(state, as_tensor(output), as_tensor(left["intermediates"]["attention_weights"][0]), y=y)


@compared("Flax nnx", package="flax")
def flax_nnx():
    import jax

    with standing_in(*BESIDE_FLAX):
        from flax import nnx

    x, y = data().numpy(), data(B, S, E, seed=2).numpy()
    double = jax.numpy.float64
    layer = nnx.MultiHeadAttention(
        num_heads=H, in_features=E, num_kv_heads=2, param_dtype=double, dtype=double, decode=False, rngs=nnx.Rngs(0)
    )
    nnx.update(layer, jax_drawn(nnx.state(layer, nnx.Param)))
    output = layer(x, y, sow_weights=True)
    (weights,) = jax.tree.leaves(nnx.pop(layer, nnx.Intermediate))
    state = {
        f"{name}.{kind}": as_tensor(getattr(getattr(layer, name), kind)[...])
        for name in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    }
    return Case(state, as_tensor(output), as_tensor(weights), y=y, keys=2)


@compared("Equinox", package="equinox")
def equinox():
    import equinox as eqx
    import jax

    biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
    layer = eqx.nn.MultiheadAttention(H, E, **biases, key=jax.random.key(0), dtype=jax.numpy.float64)
    arrays, rest = eqx.partition(layer, eqx.is_array)
    layer, y = eqx.combine(jax_drawn(arrays), rest), data(B, S, E, seed=2).numpy()
    output = jax.vmap(layer)(data().numpy(), y, y)
    state = {
        f"{name}_proj.{kind}": as_tensor(getattr(getattr(layer, f"{name}_proj"), kind))
        for name in ("query", "key", "value", "output")
        for kind in ("weight", "bias")
    }
    return Case(state, as_tensor(output), y=y)


@compared("Haiku", package="dm-haiku")
def haiku():
    import haiku as hk
    import jax

    def layer(query, key):
        return hk.MultiHeadAttention(H, D, w_init=hk.initializers.RandomNormal(), model_size=E)(query, key, key)

    made = hk.without_apply_rng(hk.transform(layer))
    x, y = data().numpy(), data(B, S, E, seed=2).numpy()
    parameters = jax_drawn(made.init(jax.random.key(0), x, y))
    output = made.apply(parameters, x, y)
    state = {
        f"{name.split('/')[-1]}/{kind}": as_tensor(one)
        for name, both in parameters.items()
        for kind, one in both.items()
    }
    return Case(state, as_tensor(output), y=y)


@compared("MLX", package="mlx")
def mlx():
    import mlx.core as mx
    from mlx.nn import MultiHeadAttention
    from mlx.utils import tree_flatten, tree_map

    mx.set_default_device(mx.cpu)
    generator = np.random.default_rng(0)
    layer = MultiHeadAttention(E, H, bias=True)
    layer.update(tree_map(lambda one: mx.array(drawn(one.shape, generator).astype(np.float32)), layer.parameters()))
    x, y = (one.numpy().astype(np.float32) for one in (data(), data(B, S, E, seed=2)))
    output = np.array(layer(mx.array(x), mx.array(y), mx.array(y)))
    state = {name: as_tensor(np.array(one)) for name, one in tree_flatten(layer.parameters())}
    return Case(state, as_tensor(output), x=as_tensor(x), y=as_tensor(y), bound=SINGLE)


@compared("ONNX Runtime Attention", package="onnxruntime")
def onnx_runtime():
    import onnxruntime
    from onnx import TensorProto, helper

    generator = np.random.default_rng(0)
    given = {"x": data().numpy(), "weights": drawn((E, 3 * E), generator), "bias": drawn((3 * E,), generator)}
    given = {name: one.astype(np.float32) for name, one in given.items()}
    node = helper.make_node("Attention", list(given), ["z"], domain="com.microsoft", num_heads=H)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, one.shape) for name, one in given.items()]
    graph = helper.make_graph(
        [node], "attention", inputs, [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    )
    model.ir_version = 10
    (z,) = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(["z"], given)
    state = {name: as_tensor(given[name]) for name in ("weights", "bias")}
    state |= {"out.weight": as_tensor(drawn((E, E), generator)), "out.bias": as_tensor(drawn((E,), generator))}
    output = as_tensor(z) @ state["out.weight"].T + state["out.bias"]
    note = "a projection of the output behind it, which the operator has not"
    return Case(state, output, x=as_tensor(given["x"]), bound=SINGLE, note=note)
