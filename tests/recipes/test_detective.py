"""detective.py and headers.py: what names and shapes tell, what they leave open, and every format's header."""

import io
import json
import os
import re
import runpy
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from atlas import layouts
from checkpoints import GGUF, NAMED, D, E, H, files, gguf, keys_of, layer_of, numpy_archive, safetensors
from convert import convert, to_paper
from convert_file import read
from detective import find, lines, nothing
from detective_numbers import numbers
from headers import header
from torch import nn

from builder import archives

ROOT = Path(__file__).parents[2]


def drawn(name):
    """Tensors of a layout drawn at random, and the layer that is found in them."""
    state = {
        tensor: torch.randn(shape) for tensor, shape in layer_of(layouts()[name], keys_of(layouts()[name])).items()
    }
    (layer,) = find({tensor: t.shape for tensor, t in state.items()}, num_heads=H)
    return state, layer


@pytest.mark.parametrize("name", NAMED)
def test_where_is_the_papers_matrix(name):
    """For each layout and reading: the expression, evaluated, is to_paper's head."""
    layout = layouts()[name]
    K = keys_of(layout)
    state, layer = drawn(name)
    reading = next(one for one in layer.readings if name in one.layouts)
    paper = to_paper(state, layout, H, K, prefix="x.")
    for role, heads in (("q", H), ("k", K), ("v", K), ("o", H)):
        for head in range(heads):
            found = eval(layer.where(role, head, H, reading), {"state": state})
            assert torch.equal(found, getattr(paper, f"W_{role}")[head]), (role, head)


def test_heads_that_a_shape_tells():
    keras = {"a/query/kernel": (E, H, D), "a/key/kernel": (E, H, D), "a/value/kernel": (E, H, D)}
    lens = {f"blocks.0.attn.W_{role}": (H, E, D) for role in "QKV"} | {"blocks.0.attn.W_O": (H, D, E)}
    four = {f"a.{role}_proj.weight": (E, E) for role in "qkvo"}
    t5 = {f"a.{role}.weight": (E, E) for role in "qkvo"} | {"a.relative_attention_bias.weight": (32, H)}
    assert [find(one)[0].num_heads for one in (keras, lens, t5)] == [H, H, H]
    assert find(four)[0].num_heads is None
    assert find(four | {"a.q_norm.weight": (D,)})[0].num_heads == H
    assert find(four | {"a.q_norm.weight": (E,)})[0].num_heads is None  # over all heads at once, as in OLMo-2
    assert find(four | {"a.sinks": (H,)})[0].num_heads == H
    assert find(four, {"num_attention_heads": H})[0].num_heads == H
    assert find(four, {"num_attention_heads": 7})[0].num_heads is None  # of another part of the model
    assert "not in the file" in lines(find(four)[0])[-1]


def test_two_towers_have_two_numbers_of_heads():
    names = {f"{tower}.a.{role}_proj.weight": (E, E) for tower in ("vision_model", "text_model") for role in "qkvo"}
    config = {"vision_config": {"num_attention_heads": 2}, "text_config": {"num_attention_heads": 3}}
    assert [layer.num_heads for layer in find(names, config)] == [2, 3]


def test_heads_of_another_part_are_not_taken():
    vision = {f"vision_tower.a.{role}_proj.weight": (E, E) for role in "qkvo"}
    assert (
        find(vision, {"vision_config": {"hidden_size": E}, "text_config": {"num_attention_heads": 2}})[0].num_heads
        is None
    )
    assert find(vision, {"text_config": {"num_attention_heads": 2}, "num_attention_heads": 2})[0].num_heads is None
    assert (
        find(vision, {"hidden_size": 4 * E, "num_attention_heads": 2})[0].num_heads is None
    )  # the text's, as in LLaVA's own files
    assert find(vision, {"hidden_size": E, "num_attention_heads": 2})[0].num_heads == 2  # a model of pictures alone
    assert find(vision, {"vision_config": [1], "num_attention_heads": 2})[0].num_heads == 2
    halves = {f"model.{half}.a.{role}_proj.weight": (E, E) for half in ("encoder", "decoder") for role in "qkvo"}
    config = {"encoder_attention_heads": 2, "decoder_attention_heads": 3}
    assert [layer.num_heads for layer in find(halves, config)] == [2, 3]


def test_shapes_that_no_layer_has_are_no_crash():
    names = [f"a.{role}_proj.weight" for role in "qkvo"]
    for shape in ((0, 0), (0, E), (E, 0)):
        for heads in (None, H):
            (layer,) = find(dict.fromkeys(names, shape), num_heads=heads)
            assert lines(layer)
    four = dict.fromkeys(names, (E, E))
    for beside, shape in (("sinks", ()), ("relative_attention_bias.weight", (32,)), ("q_norm.weight", (0,))):
        assert find(four | {f"a.{beside}": shape})[0].num_heads is None


def test_packed_numbers_are_no_matrix():
    """MLX and bitsandbytes keep the name; the shape is that of packed numbers."""
    four = {f"a.{role}_proj.weight": (E, E // 8) for role in "qkvo"}
    assert find(four | {f"a.{role}_proj.scales": (E, 1) for role in "qkvo"}) == []
    assert find(four | {f"a.{role}_proj.weight.absmax": (E,) for role in "qkvo"}) == []
    plain = {f"a.{role}_proj.weight": (E, E) for role in "qkvo"}
    assert find(
        plain | {f"a.{role}_proj.weight_scale": (1,) for role in "qkvo"}
    )  # FP8: one factor, and the shape is right
    blocks = {f"a.{role}_proj.weight_scale_inv": (1, 1) for role in "qkvo"}  # FP8, a factor for each block
    assert [layer.names for layer in find(plain | blocks)] == [layer.names for layer in find(plain)]
    awq = {f"a.{role}_proj.{part}": (E, 3) for role in "qkvo" for part in ("qweight", "qzeros", "scales")}
    assert find(awq) == []


@pytest.mark.parametrize("name", NAMED)
def test_the_order_of_a_file_says_nothing(name):
    """safetensors sorts its names: keys come before queries."""
    shapes = layer_of(layouts()[name], keys_of(layouts()[name]))
    (here,), (turned,), (sorted_,) = (
        find(dict(order), num_heads=H) for order in (shapes.items(), reversed(shapes.items()), sorted(shapes.items()))
    )
    assert lines(here) == lines(turned) == lines(sorted_)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.q_proj.lora_A.default.weight", "LoRA"), ("unet_attn1_to_q.lora_down.weight", "LoRA"), ("a.q_proj.qweight", "quantised"),
        ("a.q_proj.base_layer.weight", "wrapped"), ("_fsdp_wrapped_module._flat_param", "wrapped"),
    ],
)  # fmt: skip
def test_why_nothing_was_found(name, said):
    assert find({name: (E, E)}) == []
    assert nothing({"b.weight": (E,), name: (E, E)}) == f"no attention found among 2 tensors; {said}: {name}"
    assert nothing({"scale_shift_table": (6, E)}) == "no attention found among 1 tensors"


def test_the_model_type_decides_and_an_unknown_one_does_not():
    neox = {"a.query_key_value.weight": (3 * E, E), "a.dense.weight": (E, E)}
    assert [layer.sure for kind in ("gpt_neox", "chatglm") for layer in find(neox, {"model_type": kind})] == [
        True,
        False,
    ]
    assert find(neox, {"model_type": "bloom"})[0].readings[0].layouts == ("BLOOM",)


def test_collisions():
    """The same names and shapes, read in two ways: never one answer."""
    four = {f"a.{role}_proj.weight": (E, E) for role in "qkv"} | {"a.out_proj.weight": (E, E)}
    paddle = find(four)[0]
    assert [reading.layouts[-1] for reading in paddle.readings][-1] == "Paddle"
    assert len({paddle.where("q", 1, H, reading) for reading in paddle.readings}) == 2
    speech = find({"a.in_proj_weight": (3 * E, E), "a.out_proj.weight": (E, E), "a.pos_bias_u": (D, H)})[0]
    assert len(speech.readings) == 2
    assert find({"a.in_proj_weight": (3 * E, E), "a.out_proj.weight": (E, E)})[0].sure
    company = {"a.qkv_proj.weight": (3 * E, E), "a.out_proj.weight": (E, E)}
    assert find(company)[0].readings[0].layouts == ("CodeGen",)
    by_hand = {
        "a.qkv_proj.weight": (3 * E, E),
        "a.o_proj.weight": (E, E),
    }  # cut head by head in tutorials, in blocks in Phi-3
    for names, model, order in ((company, "codegen", "shards 4 qvk"), (by_hand, "phi3", "blocks qkv")):
        assert {"blocks qkv", "groups", order} <= {reading.layout.order.__name__ for reading in find(names)[0].readings}
        assert [reading.layout.order.__name__ for reading in find(names, {"model_type": model})[0].readings] == [order]
    assert not find(company | {"a.output_gate.weight": (E, E)})[0].sure  # MiniMax's linear attention
    few = {
        "a.q_proj.weight": (E, E),
        "a.k_proj.weight": (E // 2, E),
        "a.v_proj.weight": (E // 2, E),
        "a.out_proj.weight": (E, E),
    }
    assert find(few)[0].readings[0].layouts == ()  # Paddle's (in, out) would fit, with keys of another width


def test_what_is_no_attention():
    mamba = {"a.in_proj.weight": (3 * E, E), "a.out_proj.weight": (E, E), "a.conv1d.weight": (E, 1, 4)}
    assert find(mamba) == []
    assert find({"a.key.weight": (E, E), "a.value.weight": (E, E), "a.receptance.weight": (E, E)}) == []
    assert find({"mlp.input_linear.weight": (3 * E, E), "mlp.output_linear.weight": (E, 3 * E)}) == []
    mla = {"a.q_b_proj.weight": (40, 10), "a.kv_b_proj.weight": (40, 10), "a.o_proj.weight": (E, E)}
    assert "low rank" in lines(find(mla)[0])[-1]


def test_moments_and_prefixes():
    state = nn.MultiheadAttention(E, H).state_dict()
    plain = {name: tuple(tensor.shape) for name, tensor in state.items()}
    lightning = {f"state_dict.model.{name}": shape for name, shape in plain.items()}
    moments = {f"optimizer.state.0.exp_avg.{name}": shape for name, shape in plain.items()}
    (layer,) = find(lightning | {f"exp_avg.{name}": shape for name, shape in plain.items()} | moments)
    assert (layer.prefix, layer.number) == ("state_dict.model.", 1)


def test_what_no_name_says():
    four = {f"a.{role}_proj.weight": (E, E) for role in "qkvo"}
    told = "\n".join(lines(find(four)[0]))
    assert "LLaMA: half" in told
    shown = [line.split('"')[1] for line in told.splitlines() if re.search(r"(convert|to_paper)\(", line)]
    assert {layouts()[name].rotary for name in shown} == {
        "",
        "half",
        "interleaved",
    }  # none of them as if it were the only one
    assert "Cohere: interleaved" in told
    assert "T5 also has  scale 1, positions" in "\n".join(
        lines(find({f"a.{role}.weight": (E, E) for role in "qkvo"})[0])
    )


def test_a_wrong_number_of_heads_is_told():
    four = {f"a.{role}_proj.weight": (E, E) for role in "qkvo"}
    told = lines(find(four, num_heads=5)[0], 5)
    assert any("5 heads do not fit" in line for line in told)
    with pytest.raises(ValueError, match=r"num_heads: expected heads that fit a.k_proj.weight \(24, 24\), got 5"):
        find(four)[0].where("q", 0, 5)


# Headers


@pytest.mark.parametrize("name", files())
def test_headers_of_every_format(name, tmp_path):
    content, shapes = files()[name]
    (tmp_path / name).write_bytes(content)
    found, config = header(tmp_path / name)
    assert found == shapes
    assert config == ({"model_type": "gguf/llama", "head_count": H} if name.endswith("gguf") else {})


@pytest.mark.parametrize("name", [name for name in files() if not name.startswith("model.")])
def test_names_are_the_same_with_their_numbers(name, tmp_path):
    content, shapes = files()[name]
    (tmp_path / name).write_bytes(content)
    if name == "elsewhere.pt":  # a name for people, not one that a program could guess
        with pytest.raises(ValueError, match="expected a state dict, got model, ema"):
            read(tmp_path / name)
        return
    assert {tensor: tuple(numbers.shape) for tensor, numbers in read(tmp_path / name)[0].items()} == shapes


def test_gguf_knows_its_heads_and_its_pairs(tmp_path):
    for architecture, pairs in (
        ("llama", "GGUF, llama: interleaved"),
        ("qwen2", "GGUF: half"),
        ("unheard", "GGUF, llama: interleaved, GGUF: half"),
    ):
        (tmp_path / "model.gguf").write_bytes(gguf(GGUF, architecture))
        (layer,) = find(*header(tmp_path / "model.gguf"))
        assert layer.num_heads == H
        assert f"    rotary pairs  {pairs}" in lines(layer)


def test_an_index_with_its_parts_and_config(tmp_path):
    parts = {
        "a.safetensors": {"x.q_proj.weight": (E, E), "x.o_proj.weight": (E, E)},
        "b.safetensors": {"x.k_proj.weight": (E, E), "x.v_proj.weight": (E, E)},
    }
    weight_map = {name: file for file, shapes in parts.items() for name in shapes}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=r"expected a.safetensors, b.safetensors beside it"):
        header(tmp_path / "model.safetensors.index.json")
    for file, shapes in parts.items():
        (tmp_path / file).write_bytes(safetensors(shapes))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": H}))
    (layer,) = find(*header(tmp_path / "model.safetensors.index.json"))
    assert (layer.num_heads, layer.readings[0].layouts) == (H, ("LLaMA",))


def test_files_that_are_none_of_these(tmp_path):
    for content in (b"", b"hello, this is no checkpoint", struct.pack("<Q", 10**12) + b"{}", numpy_archive()):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=r"expected \.safetensors, \.index\.json, \.gguf or a PyTorch checkpoint"):
            header(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"GGUF" + struct.pack("<I", 1))
    with pytest.raises(ValueError, match="expected GGUF of version 2 or later, got 1"):
        header(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", struct.pack("<Q", 10) + b'{"a":1234}', "the header of .safetensors"),
        ("model.safetensors", struct.pack("<Q", 10) + b"{no json!}", "the header of .safetensors"),
        ("model.gguf", b"GGUF" + struct.pack("<I", 3) + b"\xff" * 16, "the header of GGUF"),
        ("model.gguf", b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**60), "the header of GGUF"),
        ("model.safetensors.index.json", b"{}", "an index with a weight_map"),
        ("config.json", b"[1]", "an object of JSON"),
    ],
)
def test_broken_headers(tmp_path, name, content, message):
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": (1,)}))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: expected {message}"):
        header(tmp_path / (name if name != "config.json" else "model.safetensors"))


def test_the_command_line(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(files()["model.safetensors"][0])
    command = [
        sys.executable,
        ROOT / "snippets" / "recipes" / "detective.py",
        "model.safetensors",
        "--heads",
        str(H),
        "--head",
        "2",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert 'W_q of head 2: state["self_attn.in_proj_weight"][12:18].T' in done.stdout
    assert f'convert(state, "torch", "torch", num_heads={H})' in done.stdout


def test_its_archive_runs_alone(tmp_path):
    with zipfile.ZipFile(io.BytesIO(archives.packed("detective"))) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(files()["model.safetensors"][0])
    command = [sys.executable, "-P", "detective.py", "model.safetensors", "--heads", str(H)]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert "torch, MindSpore, open_clip" in done.stdout, done.stderr
    numbers = [sys.executable, "-P", "-c", "import detective_numbers, convert_file"]  # what --numbers needs
    assert subprocess.run(numbers, cwd=tmp_path, capture_output=True, env=alone).returncode == 0


def test_numbers_are_read_under_the_names_that_are_told(tmp_path, monkeypatch, capsys):
    """A checkpoint of Lightning keeps its state dict under a name, which neither the names nor the numbers have then."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H), 2, enable_nested_tensor=False)
    torch.save({"epoch": 3, "state_dict": encoder.state_dict()}, tmp_path / "lightning.ckpt")
    (tmp_path / "model.gguf").write_bytes(gguf(GGUF))

    def asked(name):
        """What the command does, in this process: how it is started is looked at above."""
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["detective.py", name, "--heads", str(H), "--numbers"])
            try:
                runpy.run_path(str(ROOT / "snippets" / "recipes" / "detective.py"), run_name="__main__")
                ended = None
            except SystemExit as end:
                ended = end.code
        return ended, capsys.readouterr()

    ended, said = asked("lightning.ckpt")
    assert (ended, said.err) == (None, "")
    assert 'W_q of head 0: state["layers.0.self_attn.in_proj_weight"][0:6].T' in said.out
    assert "by the numbers, order of its rows: cannot be told" in said.out
    refused, said = asked("model.gguf")
    assert refused == 1
    assert (
        said.err == "model.gguf: expected .safetensors or PyTorch's format, got GGUF, whose numbers are not read here\n"
    )


def test_untrained_numbers_tell_nothing():
    torch.manual_seed(0)
    state = {
        f"layers.{i}.{name}": torch.randn(3 * E if "qkv" in name else E, E)
        for i in range(3)
        for name in ("qkv.weight", "proj.weight")
    }
    (layer,) = find({name: tensor.shape for name, tensor in state.items()}, num_heads=H)
    (told,) = numbers(layer, state)
    assert "cannot be told" in told
    four = {f"layers.{i}.{role}_proj.weight": torch.randn(E, E) for i in range(3) for role in "qkvo"}
    (layer,) = find({name: tensor.shape for name, tensor in four.items()})
    assert layer.number == 3
    assert "number of heads: cannot be told" in numbers(layer, four)[0]
    unknown, *_ = find({n: t.shape for n, t in state.items()})
    assert numbers(unknown, state) == ["  by the numbers, number of heads: cannot be told"]


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        (1, f"  by the numbers: rows of 1 head(s) in a width of {E} have nothing to be compared with"),
        (E, f"  by the numbers: rows of {E} head(s) in a width of {E} have nothing to be compared with"),
        (5, f"  by the numbers: 5 heads do not fit a width of {E}"),
    ],
)
def test_a_number_of_heads_that_leaves_nothing_to_compare_is_told(heads, told):
    state = {"attn.qkv.weight": torch.randn(3 * E, E), "attn.proj.weight": torch.randn(E, E)}
    (layer,) = find({name: tensor.shape for name, tensor in state.items()})
    assert numbers(layer, state, heads) == [told]


@pytest.mark.parametrize("heads", ["0", "-3"])
def test_a_number_of_heads_below_one_is_refused(heads):
    command = [sys.executable, ROOT / "snippets" / "recipes" / "detective.py", "no such file", "--heads", heads]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"--heads: expected 1 or more, got {heads}" in done.stderr


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"c_attn.weight": (E, 3 * E), "c_proj.weight": (E, E)}, 'W_k of head 0: state["c_attn.weight"][:, 24:30]'),
        (
            {"attn.qkv.weight": (E, 3 * E), "attn.out.weight": (E, E)},
            'W_k of head 0: state["attn.qkv.weight"][:, 24:30]',
        ),
    ],
)
def test_a_number_of_heads_fits_a_matrix_that_is_packed_in_out(names, told):
    """GPT-2's was refused, because matrices were taken to be (out, in)."""
    (layer,) = find(names, num_heads=4)
    assert layer.num_heads == 4
    assert told in "\n".join(lines(layer, 4))


def test_a_header_whose_length_begins_like_a_pickle_is_one(tmp_path):
    """One file in 32 was taken for a pickle: its first byte is that of the header's length."""
    made = {n: safetensors({"q_proj.weight": (2, 2), "x" * n: (1,)}) for n in range(1, 300)}
    alike = {n: content for n, content in made.items() if content[:1] == b"\x80"}
    assert alike
    for n, content in alike.items():
        (tmp_path / "model.safetensors").write_bytes(content)
        assert set(header(tmp_path / "model.safetensors")[0]) == {"q_proj.weight", "x" * n}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_to_be_called_runs(name):
    """The line under each reading, with torch's place or without."""
    state, layer = drawn(name)
    calls = [line.strip() for line in lines(layer, H) if re.search(r"(convert|to_paper)\(", line)]
    assert calls
    for call in calls:
        eval(call, {"convert": convert, "to_paper": to_paper, "state": state})
