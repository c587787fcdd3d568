"""The detective in the browser: the same answers as detective.py on the same data, every format, and what a hand does."""

import base64
import gzip
import os
import pickle

import browser
import pytest
import torch
from atlas import layouts
from checkpoints import GGUF, NAMED, D, E, H, files, gguf, keys_of, layer_of, numpy_archive, safetensors
from detective import find
from torch import nn

ASK = """async ([folder, asked]) => {
  const rules = await import(folder + "explorers/detective.js");
  const atlas = await (await fetch(folder + "data/atlas.json")).json();
  const where = (layer) => (reading) => [..."qkvo"].filter((role) => Object.keys(layer.names).some((roles) => roles.includes(role)))
    .map((role) => rules.where(layer, reading, role, 0, layer.heads));
  return asked.map(({ shapes, config, heads }) => rules.find(shapes, atlas, config, heads).map((layer) => ({
    prefix: layer.prefix, names: layer.names, number: layer.number, heads: layer.heads,
    readings: layer.readings.map((reading) => reading.layouts.map(({ name }) => name)),
    where: layer.heads ? layer.readings.map(where(layer)) : [],
  })));
}"""
READ = """async ([folder, files]) => {
  const { header } = await import(folder + "explorers/headers.js");
  return Promise.all(files.map(async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    return header(new Blob([bytes])).catch((error) => ({ code: error.code ?? String(error), values: error.values }));
  }));
}"""


def told(shapes, config=None, heads=None):
    """What detective.py says, in the form of ASK."""
    return [
        {
            "prefix": layer.prefix, "names": layer.names, "number": layer.number, "heads": layer.num_heads,
            "readings": [list(reading.layouts) for reading in layer.readings],
            "where": [
                [layer.where(role, 0, layer.num_heads, reading) for role in "qkvo" if any(role in roles for roles in layer.names)]
                for reading in layer.readings
            ] if layer.num_heads else [],
        }
        for layer in find(shapes, config, heads)
    ]  # fmt: skip


def asked():
    """Layouts with and without their heads, whole models, and what is no attention."""
    for name in NAMED:
        shapes = layer_of(layouts()[name], keys_of(layouts()[name]))
        yield from ({"shapes": shapes, "heads": heads} for heads in (None, H))
        for model in layouts()[name].models:
            yield {"shapes": shapes, "config": {"model_type": model, "num_attention_heads": H}}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H), 3, enable_nested_tensor=False).state_dict()
    yield {"shapes": {name: tuple(tensor.shape) for name, tensor in encoder.items()}}
    four = {f"a.{role}_proj.weight": (E, E) for role in "qkvo"}
    yield {"shapes": four | {"a.q_norm.weight": (D,)}}
    yield {"shapes": four, "heads": 5}
    yield {
        "shapes": {f"vision.{name}": shape for name, shape in four.items()},
        "config": {"vision_config": {"num_heads": 2}},
    }
    text = {"text_config": {"num_attention_heads": 2}}
    for config in (
        text,
        text | {"vision_config": {"hidden_size": E}},
        {"hidden_size": 2 * E, "num_attention_heads": 2},
    ):
        yield {"shapes": {f"visual.{name}": shape for name, shape in four.items()}, "config": config}
    halves = {"encoder_attention_heads": 2, "decoder_attention_heads": 3}
    yield {
        "shapes": {f"{half}.{name}": shape for half in ("encoder", "decoder") for name, shape in four.items()},
        "config": halves,
    }
    yield {"shapes": four | {f"a.{role}_proj.scales": (E, 1) for role in "qkvo"}}
    yield {"shapes": four | {"a.sinks": (), "a.q_norm.weight": (0,)}}
    yield {"shapes": {"a.in_proj.weight": (3 * E, E), "a.out_proj.weight": (E, E)}}
    yield {"shapes": {"a.qkv_proj.weight": (3 * E, E), "a.out_proj.weight": (E, E), "a.output_gate.weight": (E, E)}}
    yield {"shapes": {"a.q_b_proj.weight": (40, 10), "a.kv_b_proj.weight": (40, 10)}}
    yield {"shapes": {"a.q.weight": (E, E), "a.k.weight": (E, E), "a.v.weight": (E, E), "proj_out.weight": (9, E)}}


@pytest.fixture(scope="module")
def opened(chromium, server):
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(f"{server.base}/en/atlas/detective/")
    page.wait_for_selector("layout-detective input")
    yield page
    context.close()
    assert not faults


def test_the_browser_says_what_python_says(opened):
    questions = [{"config": {}, "heads": None} | one for one in asked()]
    answers = opened.evaluate(ASK, ["../../../", questions])
    for question, answer in zip(questions, answers, strict=True):
        assert answer == told(question["shapes"], question["config"], question["heads"]), question


def test_lines_as_programs_print_them(opened):
    lines = {
        "layers.0.q_proj.weight (24, 12)": ("layers.0.q_proj.weight", [24, 12]),
        "layers.0.q_proj.weight: torch.float16 [24, 12]": ("layers.0.q_proj.weight", [24, 12]),
        "('layers.0.q', torch.Size([4, 6, 12]))": ("layers.0.q", [4, 6, 12]),
        "blk.0.attn_q.weight | F16 | 24x12": ("blk.0.attn_q.weight", [24, 12]),
    }
    pasted = "async ([folder, lines]) => lines.map((await import(folder + 'explorers/layout-detective.js')).pasted)"
    assert opened.evaluate(pasted, ["../../../", list(lines)]) == [{name: shape} for name, shape in lines.values()]


def test_the_browser_reads_the_headers_that_python_reads(opened):
    packed = {name: base64.b64encode(content).decode() for name, (content, _) in files().items()}
    answers = opened.evaluate(READ, ["../../../", list(packed.values())])
    for (name, (content, shapes)), answer in zip(files().items(), answers, strict=True):
        assert {tensor: tuple(shape) for tensor, shape in answer["tensors"].items()} == shapes, name
        assert answer["calls"] == [], name
        assert answer["bytes"] <= 2 * len(content) + 70_000, name
    assert answers[1]["config"] == {"model_type": "gguf/llama", "head_count": H}


class Acts:
    def __reduce__(self):
        return (os.system, ("touch acted",))


def test_a_file_that_would_act_is_named_and_does_not(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.randn(3, 4), "more": Acts()}, "attack.pt")
    torch.save(nn.Linear(3, 4), "module.pt")
    contents = [(tmp_path / name).read_bytes() for name in ("attack.pt", "module.pt")] + [
        pickle.dumps({"more": Acts()})
    ]
    contents += [
        contents[0][:-30],
        b"GGUF" + bytes(20),
        b"nothing of the kind",
        gguf(GGUF)[:150],
        pickle.dumps({"a": 1})[:-3],
        numpy_archive(),
    ]
    answers = opened.evaluate(READ, ["../../../", [base64.b64encode(content).decode() for content in contents]])
    attack, module, loose, *broken = answers
    assert (attack["tensors"], attack["calls"]) == ({"w": [3, 4]}, ["posix.system"])
    assert module["tensors"] == {"weight": [4, 3], "bias": [4]}
    assert "torch.nn.modules.linear.Linear" in module["calls"]
    assert loose["calls"] == ["posix.system"]
    assert [one["code"] for one in (broken[0], broken[2], broken[3], broken[4])] == [
        "broken",
        "unknown",
        "broken",
        "broken",
    ]
    assert broken[1]["tensors"] == {}
    assert broken[5]["code"] == "empty"
    assert not (tmp_path / "acted").exists()


def test_of_a_large_file_the_header_alone_is_read(opened):
    content = safetensors({f"layers.{i}.attn.qkv.weight": (3 * E, E) for i in range(12)}) + bytes(5_000_000)
    (answer,) = opened.evaluate(READ, ["../../../", [base64.b64encode(content).decode()]])
    assert answer["bytes"] < 3_000


def chosen(page, **named):
    """The explorer's field with these files in it."""
    files = [{"name": name.replace("_", "."), "mimeType": "", "buffer": content} for name, content in named.items()]
    page.set_input_files("layout-detective input[type=file]", files)


def test_by_hand(opened):
    """An example, a number of heads, a file, then one that is none."""
    page = opened
    page.get_by_role("button", name="GPT-NeoX").click()
    page.locator(".detective-result").get_by_text("head by head").first.wait_for()
    page.get_by_text("Kinds of attention layers: 1").wait_for()
    page.get_by_label("number of heads").fill("12")
    page.get_by_label("head to be found").fill("3")
    page.get_by_text('W_q = state["layers.0.query_key_value.weight"][576:640].T').wait_for()
    chosen(page, x_safetensors=files()["model.safetensors"][0])
    page.get_by_label("number of heads").fill("4")
    page.get_by_text('W_o = state["self_attn.out_proj.weight"][:, 18:24].T').wait_for()
    page.get_by_label("number of heads").fill("5")
    page.get_by_text("not those of 5 heads").wait_for()
    chosen(page, x_bin=b"none of these, sorry")
    page.get_by_text("This is none of safetensors, GGUF and PyTorch.").wait_for()
    page.get_by_label("number of heads").fill("")
    chosen(page, m_gguf=gguf(GGUF), config_json=b'{"num_attention_heads": 4}')
    page.get_by_text("neighbouring numbers turn together: GGUF, llama").wait_for()
    assert page.evaluate(browser.TOO_WIDE) == []


def test_script_of_ten_kilobytes(site):
    names = ("layout-detective.js", "detective.js", "headers.js")
    together = b"".join((site / "explorers" / name).read_bytes() for name in names)
    assert len(gzip.compress(together)) < 10_240
