"""convert.py and refit.py: into another layout and back, what is refused, and the same layer in other shapes."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import convert_file
import pytest
import torch
from atlas import Layout, Part, blocks, groups, layouts, out, shards
from compare_models import check
from convert import convert, fitting, from_paper, to_paper
from refit import FourLinears, NarrowHeads, clone_heads, fuse_lora, shard, split_lora
from safetensors.torch import save_file
from torch import nn

B, L, S, E, H, K, D = 2, 5, 7, 24, 4, 2, 6


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attention(**options):
    mha = nn.MultiheadAttention(E, H, batch_first=True, **options)
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mha.eval()


def test_kernels_of_keras_and_flax():
    """One entry at a time, from the definition of a head's rows and columns."""
    mha = attention()
    made = convert(mha.state_dict(), "torch", "Keras", H)
    for t, name in enumerate(("query", "key", "value")):
        for h in range(H):
            for d in range(D):
                assert torch.equal(made[f"{name}/kernel"][:, h, d], mha.in_proj_weight[t * E + h * D + d])
                assert made[f"{name}/bias"][h, d] == mha.in_proj_bias[t * E + h * D + d]
    for h in range(H):
        assert torch.equal(made["attention_output/kernel"][h], mha.out_proj.weight[:, h * D : h * D + D].T)
    x = torch.randn(B, L, E)
    q, k, v = (
        torch.einsum("ble,ehd->bhld", x, made[f"{n}/kernel"]) + made[f"{n}/bias"][:, None]
        for n in ("query", "key", "value")
    )
    output = torch.einsum("bhld,hde->ble", (q @ k.mT / D**0.5).softmax(-1) @ v, made["attention_output/kernel"])
    torch.testing.assert_close(output + made["attention_output/bias"], mha(x, x, x)[0])


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        (blocks(), [(t, h) for t in range(3) for h in range(H)]),
        (groups, [(t, h) for h in range(H) for t in range(3)]),
        (shards(2), [(t, h) for g in range(2) for t in range(3) for h in (2 * g, 2 * g + 1)]),
        (blocks("kvq"), [(t, h) for t in (1, 2, 0) for h in range(H)]),
    ],
    ids=["q|k|v", "head by head", "two groups of heads", "k|v|q"],
)
def test_orders_of_fused_rows(order, rows):
    mha = attention(bias=False)
    fused = torch.cat([mha.in_proj_weight[t * E + h * D : t * E + h * D + D] for t, h in rows])
    theirs = Layout("theirs", "theirs", {"in_proj_weight": Part("qkv", "(n d) e")} | out("out_proj"), order)
    given = {"in_proj_weight": fused.detach(), "out_proj.weight": mha.out_proj.weight.detach()}
    made = convert(given, theirs, "torch", H)
    assert torch.equal(made["in_proj_weight"], mha.in_proj_weight)
    assert torch.equal(
        from_paper(
            to_paper(mha.state_dict(), "torch", H), replace(theirs, tensors={"w": theirs.tensors["in_proj_weight"]})
        )["w"],
        fused,
    )


def test_tokens_in_columns():
    """Julia's column-major (3 D, H) blocks are rows head by head."""
    mha, x = attention(bias=False), torch.randn(1, L, E)
    rows = Layout("columns", "julia", {"W": Part("qkv", "(n d) e")}, groups)
    W = from_paper(to_paper(mha.state_dict(), "torch", H), rows)["W"]
    heads = []
    for h in range(H):
        q, k, v = (W @ x[0].T)[3 * D * h : 3 * D * (h + 1)].chunk(3)
        heads.append(v @ (k.T @ q / D**0.5).softmax(0))
    torch.testing.assert_close((mha.out_proj.weight @ torch.cat(heads)).T, mha(x, x, x)[0][0])


def grouped():
    names = {"query.weight": H * D, "key.weight": K * D, "value.weight": K * D}
    state = {name: torch.randn(rows, E) / 3 for name, rows in names.items()} | {
        "output.weight": torch.randn(E, H * D) / 3
    }
    return state, to_paper(state, "curated-transformers", H, K)


def test_grouped_queries_their_maps_and_their_clones():
    state, paper = grouped()
    x = torch.randn(B, L, E)
    output, A = paper.attend(x)
    for i in range(H):
        q = x @ state["query.weight"][D * i : D * i + D].T
        k = x @ state["key.weight"][D * (i // 2) : D * (i // 2) + D].T
        torch.testing.assert_close(A[:, i], (q @ k.mT / D**0.5).softmax(-1))
    torch.testing.assert_close(clone_heads(paper).attend(x)[0], output)
    assert len(clone_heads(paper).W_q) == 2 * H
    mha = attention(bias=False)
    mha.load_state_dict(from_paper(paper, "torch") | {}, strict=False)
    torch.testing.assert_close(mha(x, x, x)[0], output)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_together_are_the_layer(ranks):
    _, paper = grouped()
    paper, x = replace(paper, b_o=torch.randn(E)), torch.randn(B, L, E)
    parts = [shard(paper, rank, ranks) for rank in range(ranks)]
    torch.testing.assert_close(sum(part.attend(x)[0] for part in parts), paper.attend(x)[0])
    torch.testing.assert_close(torch.cat([part.attend(x)[1] for part in parts], 1), paper.attend(x)[1])
    with pytest.raises(ValueError, match=r"ranks: expected a divisor of H, .* got 3"):
        shard(paper, 0, 3)


@pytest.mark.parametrize("layout", ["torch", "GPT-BigCode", "CodeGen"])
def test_lora_fused_and_split(layout):
    r, alpha = 2, 3.0
    A, wide = torch.randn(r, E), torch.randn(3 * E, r)
    parts = split_lora(A, wide, layout, H)
    weights = to_paper({**_state(layout), _fused(layout): wide @ A}, layout, H)
    for role, (a, b) in parts.items():
        torch.testing.assert_close((b @ a).unflatten(0, (H, D)).mT, getattr(weights, f"W_{role}"))
    pairs = {role: (torch.randn(r, E), torch.randn(E, r)) for role in "qkv"}
    A3, B3, factor = fuse_lora(pairs, layout, H)
    fused = to_paper({**_state(layout), _fused(layout): B3 @ A3 * (factor * alpha / len(A3))}, layout, H)
    for role, (a, b) in pairs.items():
        torch.testing.assert_close(getattr(fused, f"W_{role}"), (b @ a * (alpha / r)).unflatten(0, (H, D)).mT)
    assert (len(A3), factor) == (3 * r, 3)
    with pytest.raises(ValueError, match=r"pairs: expected one rank, got \[1, 2, 2\]"):
        fuse_lora({**pairs, "q": (torch.randn(1, E), torch.randn(E, 1))}, layout, H)


def _fused(layout):
    return next(name for name, part in layouts()[layout].tensors.items() if part.roles == "qkv" and "e" in part.axes)


def _state(layout):
    return {
        name: torch.zeros(E, E)
        for name, part in layouts()[layout].tensors.items()
        if part.roles == "o" and "n" in part.axes
    }


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 10, "vdim": 9}], ids=["packed", "no bias", "kdim, vdim"]
)
def test_four_linears_are_the_layer(options):
    mha, x = attention(**options), torch.randn(B, L, E)
    key, value = torch.randn(B, S, options.get("kdim", E)), torch.randn(B, S, options.get("vdim", E))
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1, 5:] = True
    future = torch.ones(L, S, dtype=torch.bool).triu(1)
    four = FourLinears(mha)
    assert [name for name, m in four.named_modules() if type(m) is nn.Linear] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
    ]
    for masks in (
        {},
        {"key_padding_mask": padding},
        {"attn_mask": future},
        {"key_padding_mask": padding, "attn_mask": future},
    ):
        output, A = four(x, key, value, need_weights=True, **masks)
        expected = mha(x, key, value, average_attn_weights=False, **masks)
        torch.testing.assert_close((output, A), expected)
        assert four(x, key, value, **masks)[1] is None
    with pytest.raises(TypeError, match=r"key_padding_mask: expected True where hidden, got torch\.float64"):
        four(x, key, value, key_padding_mask=torch.zeros(B, S))
    with pytest.raises(ValueError, match="mha: expected no added keys"):
        FourLinears(nn.MultiheadAttention(E, H, add_bias_kv=True))


def test_heads_of_different_widths():
    """Columns left out for good are the columns set to 0, at the old scale."""
    mha, x = attention(), torch.randn(B, L, E)
    kept = {0: [0, 2, 5], 1: list(range(D)), 2: [1], 3: [3, 4]}
    narrow = NarrowHeads(to_paper(mha.state_dict(), "torch", H), kept)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in mha.parameters())
    left = torch.zeros(E)
    left[[D * i + j for i, columns in kept.items() for j in columns]] = 1
    with torch.no_grad():
        mha.in_proj_weight.mul_(left.repeat(3)[:, None])
        mha.in_proj_bias.mul_(left.repeat(3))
    torch.testing.assert_close(narrow(x), mha(x, x, x)[0])


def test_a_bias_of_the_values_goes_into_that_of_the_output():
    mha, x = attention(), torch.randn(B, L, E)
    paper = to_paper(mha.state_dict(), "torch", H)
    made = from_paper(replace(paper, b_q=torch.zeros(H, D)), "GPT-Neo")
    assert sorted(name for name in made if "bias" in name) == ["out_proj.bias"]
    again = to_paper(made, "GPT-Neo", H)
    torch.testing.assert_close(again.attend(x), replace(paper, b_q=torch.zeros(H, D)).attend(x))
    with pytest.raises(ValueError, match="b_q: expected zeros, for GPT-Neo has no place for it"):
        from_paper(paper, "GPT-Neo")


def test_scales_differ():
    """T5 divides by nothing: its queries are smaller by as much."""
    paper, x = to_paper(attention(bias=False).state_dict(), "torch", H), torch.randn(B, L, E)
    t5 = from_paper(paper, "T5")
    torch.testing.assert_close(t5["q.weight"] * math.sqrt(D), paper.W_q.mT.flatten(0, 1))
    torch.testing.assert_close(to_paper(t5, "T5", H).attend(x), paper.attend(x))


def test_rotary_pairs_are_sorted():
    """transformers' LLaMA turns halves, Meta's pairs: the rows of q and k are sorted, those of v and o are not."""
    state = {f"{role}_proj.weight": torch.randn(n * D, E) / 3 for role, n in (("q", H), ("k", K), ("v", K))}
    state["o_proj.weight"] = torch.randn(E, E) / 3
    meta = convert(state, "LLaMA", "LLaMA, Meta's file", H, K)
    by_hand = state["q_proj.weight"].view(H, 2, D // 2, E).transpose(1, 2).reshape(H * D, E)
    assert torch.equal(meta["wq.weight"], by_hand)
    assert torch.equal(meta["wv.weight"], state["v_proj.weight"])
    x = torch.randn(B, L, E)
    torch.testing.assert_close(
        to_paper(meta, "LLaMA, Meta's file", H, K).attend(x), to_paper(state, "LLaMA", H, K).attend(x)
    )
    back = convert(meta, "LLaMA, Meta's file", "LLaMA", H, K)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items() if name in back)
    as_pairs, _ = to_paper(state, replace(layouts()["LLaMA"], rotary="interleaved"), H, K).attend(x)
    assert not torch.allclose(as_pairs, to_paper(state, "LLaMA", H, K).attend(x)[0], atol=0.1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("c_proj.weight"), r"c_proj\.weight: expected, and not among c_attn\.weight"),
        (
            lambda s: s.update({"c_attn.weight": torch.zeros(70, E)}),
            r"c_attn\.weight: expected 12 heads of one width, got \(70, 24\)",
        ),
        (
            lambda s: s.update({"c_attn.weight": torch.zeros(72)}),
            r"c_attn\.weight: expected 2 axes, \(n d\) e, got \(72,\)",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(change, told):
    state = convert(attention().state_dict(), "torch", "GPT-BigCode", H)
    change(state)
    with pytest.raises(ValueError, match=told):
        to_paper(state, "GPT-BigCode", H)


def test_the_likely_layout_is_named():
    state = convert(attention().state_dict(), "torch", "BART", H)
    with pytest.raises(ValueError, match=r"names and shapes are those of .*Paddle.*BART"):
        to_paper(state, "torch", H)
    assert {"BART", "Paddle"} <= set(fitting(state, H, H))
    with pytest.raises(ValueError, match=r"layout: expected a name of atlas\.layouts\(\), got 'GTP-2'"):
        to_paper(state, "GTP-2", H)
    with pytest.raises(ValueError, match="target: BLOOM has positions, torch has not"):
        convert(state, "BLOOM", "torch", H)
    with pytest.raises(ValueError, match="num_key_value_heads: expected 4, got 2"):
        to_paper(state, "BART", H, 2)


def test_a_name_that_ends_alike_is_no_layer():
    """query.weight is not the end of subquery.weight, and what is no layer stays where it stood."""
    layer = convert(attention(bias=False).state_dict(), "torch", "openai-whisper", H)
    given = {
        "a.weight": torch.randn(3),
        **{f"x.{name}": tensor for name, tensor in layer.items()},
        "subquery.weight": torch.randn(3),
    }
    made = convert(given, "openai-whisper", "torch", H)
    assert list(made) == ["a.weight", *(f"x.{name}" for name in layouts()["torch"].tensors), "subquery.weight"]


def test_every_layout_says_what_it_is():
    for name, layout in layouts().items():
        assert name == layout.name
        assert {role for part in layout.tensors.values() for role in part.roles} == set("qkvo"), name
        assert sorted(layout.order(H, H)) == sorted((role, h) for role in "qkv" for h in range(H)), name
        for tensor, part in layout.tensors.items():
            assert re.fullmatch(r"(\(n d\)|n d|e \(n d\)|\(n d\) e|e n d|n d e|n e d|e)", part.axes), (name, tensor)


def test_models_are_compared_layer_by_layer():
    def model():
        return nn.Sequential(nn.Linear(E, E), nn.Linear(E, E), nn.Linear(E, E))

    one, x = model(), torch.randn(B, E)
    two = model()
    two.load_state_dict(one.state_dict())
    assert check(one, two, x, layers=("?", "?"))
    with torch.no_grad():
        two[1].weight += 1
    report = check(one, two, x, layers=("?", "?"))
    assert not report
    assert report.parts_at == "1 and 1"
    assert report.error > 1
    two[1] = nn.Linear(E, 3)
    two[2] = nn.Linear(3, E)
    assert check(one, two, x, layers=("?", "?")).parts_at == "1 and 1", "shapes that differ are a difference"


# As a program


@pytest.fixture
def checkpoint(tmp_path):
    """A model of two BERT layers as a file."""
    names = layouts()["BERT"].tensors
    state = {
        f"encoder.layer.{i}.attention.{name}": torch.randn(E, E) if "weight" in name else torch.randn(E)
        for i in range(2)
        for name in names
    } | {"pooler.weight": torch.randn(3, E)}
    torch.save(state, tmp_path / "model.pt")
    save_file(state, tmp_path / "model.safetensors")
    return state, tmp_path


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_in_and_a_file_out(checkpoint, suffix, capsys):
    state, folder = checkpoint
    out = folder / f"out.{suffix}"
    convert_file.main(
        [str(folder / f"model.{suffix}"), "--to", "torch.nn.MultiheadAttention", "--heads", str(H), "-o", str(out)]
    )
    made, _ = convert_file.read(out)
    expected = convert(state, "BERT", "torch", H)
    assert list(made) == sorted(expected) if suffix == "safetensors" else list(expected)
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    assert "BERT, 17 tensors" in capsys.readouterr().out
    x = torch.randn(B, L, E)
    mha = nn.MultiheadAttention(E, H, batch_first=True)
    mha.load_state_dict({name: made[f"encoder.layer.1.attention.{name}"] for name in mha.state_dict()})
    torch.testing.assert_close(
        mha(x, x, x)[0], to_paper(state, "BERT", H, prefix="encoder.layer.1.attention.").attend(x)[0]
    )


def test_the_program_itself_and_an_index(checkpoint):
    state, folder = checkpoint
    names = sorted(state)
    for number, part in enumerate((names[:9], names[9:])):
        save_file({name: state[name] for name in part}, folder / f"part-{number}.safetensors")
    index = {"weight_map": {name: f"part-{int(names.index(name) > 8)}.safetensors" for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_attention_heads": H}))
    program = Path(convert_file.__file__).with_name("convert.py")
    command = [sys.executable, program, "model.safetensors.index.json", "--to", "Keras", "-o", "out.safetensors"]
    subprocess.run(command, cwd=folder, check=True)
    made, _ = convert_file.read(folder / "out.safetensors")
    assert made["encoder.layer.0.attention.query/kernel"].shape == (E, H, D)


def test_two_towers_are_converted_one_by_one(tmp_path, capsys):
    """Each with its own number of heads, out of config.json; together they are refused."""
    towers = {"text_model": 3, "vision_model": 2}
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    state = {f"{tower}.{i}.{name}.weight": torch.randn(E, E) for tower in towers for i in range(2) for name in names}
    torch.save(state, tmp_path / "model.pt")
    own = {f"{tower[:-6]}_config": {"num_attention_heads": heads} for tower, heads in towers.items()}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "num_attention_heads": 6} | own))
    command = [str(tmp_path / "model.pt"), "--to", "Keras", "-o", str(tmp_path / "out.pt")]
    with pytest.raises(SystemExit):
        convert_file.main(command)
    assert (
        "--prefix: expected layers with one number of heads, got text_model.0. 3, vision_model.0. 2"
        in capsys.readouterr().err
    )
    for tower, heads in towers.items():
        for prefix, converted in ((tower, 2), (f"{tower}.1", 1)):
            convert_file.main([*command, "--prefix", prefix])
            made, _ = convert_file.read(tmp_path / "out.pt")
            kernels = {name: tensor.shape for name, tensor in made.items() if name.endswith("query/kernel")}
            assert list(kernels.values()) == [(E, heads, E // heads)] * converted
            assert all(name.startswith(tower) for name in kernels)
    with pytest.raises(SystemExit):
        convert_file.main([*command, "--prefix", "audio"])
    assert "got no name with audio" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"GGUF" + bytes(20), b""], ids=["GGUF", "empty"])
def test_files_that_are_not_read(tmp_path, capsys, content):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.gguf").write_bytes(content)
    for name, said in (("model.gguf", "expected .*, got"), ("model.safetensors", "expected .safetensors, got")):
        with pytest.raises(SystemExit):
            convert_file.main([str(tmp_path / name), "--to", "torch", "-o", str(tmp_path / "out.pt")])
        assert re.search(f"{name}: {said}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ("torch", [], "--heads: expected the number of heads, which is not in the file"),
        ("BART", ["--heads", "4"], "--from: expected the layout, names and shapes leave BART, .* Paddle"),
        ("LLaMA", ["--heads", "4"], "--from: expected the layout, these differ in what they rotate: ViT, LLaMA"),
        ("", ["--heads", "4"], "file: expected an attention layer, got pooler.weight"),
    ],
)
def test_what_the_program_refuses(tmp_path, capsys, names, arguments, message):
    tensors = layouts()[names].tensors if names else {}
    state = {
        f"a.{name}": torch.randn(3 * E if "in_proj" in name else E, *[E] * ("e" in part.axes and "n" in part.axes))
        for name, part in tensors.items()
    }
    torch.save(state | {"pooler.weight": torch.randn(3, E)}, tmp_path / "model.pt")
    with pytest.raises(SystemExit):
        convert_file.main([str(tmp_path / "model.pt"), "--to", "torch", "-o", str(tmp_path / "out.pt"), *arguments])
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out.pt").exists()


def test_a_bias_that_the_layout_does_not_declare_is_refused():
    """It would be zero in what is made, and nobody would see it."""
    E, H = 12, 3
    mine = Layout("mine", "", {"qkv.weight": Part("qkv", "(n d) e"), "out.weight": Part("o", "e (n d)")}, order=groups)
    state = {"attn.qkv.weight": torch.randn(3 * E, E), "attn.out.weight": torch.randn(E, E)}
    assert set(convert(state, mine, "torch", H)) == {
        f"attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    }
    for name in ("attn.qkv.bias", "attn.out.bias"):
        with pytest.raises(ValueError, match=f"^{name}: it is there, and the layout has no axes for it"):
            convert(state | {name: torch.randn(3 * E)}, mine, "torch", H)


def test_a_tensor_of_another_layer_is_not_written_over():
    """BERT's output.dense.weight of attention, where the file has that of a feed-forward network under the name."""
    state = {f"layer.0.{role}_proj.weight": torch.randn(12, 12) for role in ("q", "k", "v", "out")}
    made = convert(state, "BART", "BERT", 3)
    name = next(name for name in made if name.endswith("output.dense.weight"))
    with pytest.raises(
        ValueError, match=f"^{re.escape(name)}: BERT has this name, and the file has another tensor under it"
    ):
        convert(state | {name: torch.randn(12, 48)}, "BART", "BERT", 3)


def test_a_bias_of_another_width_is_refused():
    state = {
        "in_proj_weight": torch.randn(36, 12),
        "out_proj.weight": torch.randn(12, 12),
        "in_proj_bias": torch.randn(12),
    }
    with pytest.raises(ValueError, match=r"b_q: expected biases \(4, 3\), got \(4, 1\)"):
        to_paper(state, "torch", 4)


class Many(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.last = last

    def forward(self, x):
        return {"task": "a string", "nothing": None, "logits": x, "more": (x > 0, [x.new_full((1,), self.last)])}


def test_every_tensor_of_an_output_is_compared():
    x = torch.randn(3)
    assert check(Many(1.0), Many(1.0), x)
    report = check(Many(1.0), Many(2.0), x)
    assert not report
    assert report.error == 1
    assert check(Many(math.nan), Many(math.nan), x)
    assert check(Many(math.nan), Many(1.0), x).error == math.inf
    assert check(Many(1.0), nn.Identity(), x), "another number of tensors: the first of each"
    with pytest.raises(ValueError, match="output: expected a tensor, or tuples and dicts of tensors, got str"):
        check(nn.Identity(), nn.Identity(), "text")
