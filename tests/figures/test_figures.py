"""Figures: what is drawn, what is refused, and whether it can be read by eye, by ear and on a phone."""

import gzip
import html as entities
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import markdown
import pytest

from builder import colours, project
from builder.dialect import Dialect
from builder.figures import alone, drawing
from builder.figures import fence as figures
from builder.figures.drawing import LEAST, PHONE, SMALL, TEXT, Axis, Panel, Refused, typeset, width_of, written
from builder.figures.kinds import attention
from builder.figures.kinds.common import ROLES
from builder.pages.page import Page

CSS = Path(project.DOCS / "shared" / "stylesheets" / "figures.css")
SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


def kept(kind, tensors, **labels):
    """As the runner stores it; a tuple stands for a tensor of which only the shape is known."""

    def shape(data):
        return [len(data), *shape(data[0])] if isinstance(data, list) else []

    stored = {
        name: {
            "shape": list(t) if isinstance(t, tuple) else shape(t),
            "dtype": "float64",
            "data": None if isinstance(t, tuple) else t,
        }
        for name, t in tensors.items()
    }
    return {"kind": kind, "tensors": stored, "labels": labels, "line": 7}


def softmax_rows(rows, columns, seed=0):
    chance = random.Random(seed)
    out = []
    for _ in range(rows):
        row = [math.exp(1.5 * chance.gauss(0, 1)) for _ in range(columns)]
        out.append([value / sum(row) for value in row])
    return out


def rosetta(embed=24, heads=4):
    """The packed matrix and its 3 x heads parts, as layouts/rosetta keeps them."""
    width = embed // heads
    tensors, groups, code = {"in_proj_weight": (3 * embed, embed)}, {"in_proj_weight": []}, {}
    for part, role in enumerate("qkv"):
        for head in range(heads):
            a = part * embed + head * width
            name = f"W_{head + 1}^{role.upper()}"
            groups["in_proj_weight"].append({"rows": [a, a + width], "role": role, "head": head, "text": name})
            code[name] = f"in_proj_weight[{a}:{a + width}].T"
            tensors[name] = (embed, width)
            groups[name] = [{"role": role, "head": head, "text": name}]
    return kept("blocks", tensors, groups=groups, code=code)


STEPS = [float(2**k) for k in range(4, 12)]
FIGURES = {
    "matrix": kept(
        "matrix",
        {"x": [[1.25, -2.5], [0.0, 3.125]], "W_1^Q": [[0.5], [-1.5]], "Q_1": [[4.375], [-4.6875]]},
        operators=["@", "="],
        groups={"W_1^Q": [{"role": "q", "head": 1}], "Q_1": [{"role": "q", "head": 1, "rows": [0, 1], "text": "x_1"}]},
        rows={"x": ["the", "cat"]},
        columns={"x": ["a", "b"]},
        mark={"x": [[0, 0], [0, 1]]},
    ),
    "blocks": rosetta(),
    "attention": kept("attention", {"weights": [softmax_rows(5, 5, h) for h in range(4)]}),
    "curves": kept(
        "curves",
        {
            "x": STEPS,
            "loop": [3e-6 * n for n in STEPS],
            "packed": [1e-6 * n for n in STEPS],
            "low": [0.8e-6 * n for n in STEPS],
            "high": [1.2e-6 * n for n in STEPS],
        },
        log=["x", "y"],
        band={"packed": ["low", "high"]},
        points=["loop"],
    ),
    "bars": kept("bars", {"float32": [2e-6, 1e-5], "float64": [3e-16, 2e-14]}, categories=["out", "grad"], log=True),
    "flow": kept(
        "flow",
        {"A": [[0.5, -1.0], [0.0, 0.2]]},
        nodes=[
            {"id": "x", "text": "X", "shape": [2, 5, 24], "column": 0, "row": 0},
            {"id": "a", "text": "A", "cells": "A", "column": 1, "row": 0, "role": "v"},
            {"id": "q", "text": "X W_i^Q", "column": 0, "row": 1, "role": "q"},
            {"id": "sum", "text": "+", "column": 0, "row": 2},
        ],
        edges=[["x", "q"], ["q", "sum"], ["x", "sum"], ["a", "sum"]],
    ),
}
TEXTS = {"title": "Where W_1^Q is", "description": "One block for each head."}


def draw(figure, language="en", identity="f", **texts):
    return figures.render(figure, {**TEXTS, **texts}, language, identity)


def tree(markup):
    """The markup in a page, through html5lib's strict parser: anything invalid raises."""
    parser = html5lib.HTMLParser(strict=True)
    return parser.parse(f"<!DOCTYPE html><html lang=en><head><title>t</title></head><body>{markup}</body></html>")


def tables(markup):
    """[[[text of a cell]]] of every table."""
    return [
        [["".join(cell.itertext()) for cell in row] for row in table.iter(f"{HTML}tr")]
        for table in tree(markup).iter(f"{HTML}table")
    ]


def drawn_texts(markup):
    return ["".join(text.itertext()) for text in tree(markup).iter(f"{SVG}text")]


# Every kind


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_is_valid_and_keeps_the_policy(kind, language):
    markup = draw(FIGURES[kind], language)
    root = tree(markup)
    assert "style=" not in markup
    assert "<style" not in markup
    assert " on" not in re.sub(r">[^<]*<", "><", markup)
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    (figure,) = root.iter(f"{HTML}figure")
    assert figure.get("class") == f"figure figure--{kind}"
    assert figure.get("id") == "figure-f"
    for svg in root.iter(f"{SVG}svg"):
        assert svg.get("viewBox") == f"0 0 {svg.get('width')} {svg.get('height')}"
        if svg.get("role") != "img":
            assert svg.get("aria-hidden") == "true"
        else:
            assert svg.get("aria-label") or svg.get("aria-labelledby") in ids
    for node in root.iter():
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert node.get(attribute) in (None, *ids)
    assert "nan" not in re.sub(r">[^<]*<", "><", markup)  # no coordinate came out as nan


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_stands_alone_as_one_picture(kind):
    """As a notebook shows it: XML of its own, colours in the place of their names, the page's texts, nothing outside."""
    panels, _ = figures._panels(FIGURES[kind], TEXTS, "en")
    root = ElementTree.fromstring(alone.svg(kind, panels))
    style, paper, *parts = root
    named = set(re.findall(r"var\((--[\w-]+)", style.text))
    assert named <= {"--role", "--role-text", "--md-code-font-family"}
    assert "--role: #0072b2" in style.text
    assert paper.get("fill") == "#fff"
    width, height = float(root.get("width")), float(root.get("height"))
    for part in parts:
        assert float(part.get("x")) + float(part.get("width")) <= width
        assert float(part.get("y")) + float(part.get("height")) <= height
    assert ["".join(text.itertext()) for text in root.iter(f"{SVG}text")] == drawn_texts(draw(FIGURES[kind]))


def test_pictures_that_are_too_wide_for_a_line_stand_below_each_other():
    panels = [Panel(width, 10) for width in (300, 300, 300)] + [Panel(50, 5, legend=True)]
    parts = [*ElementTree.fromstring(alone.svg("attention", panels))][2:]
    assert [(part.get("x"), part.get("y")) for part in parts] == [("8", "8"), ("332", "8"), ("8", "42"), ("8", "76")]


@pytest.mark.parametrize("kind", FIGURES)
def test_the_same_tensors_give_the_same_bytes(kind):
    assert draw(FIGURES[kind]) == draw(json.loads(json.dumps(FIGURES[kind])))


@pytest.mark.parametrize("kind", FIGURES)
def test_nothing_is_drawn_outside_its_picture(kind):
    for svg in tree(draw(FIGURES[kind])).iter(f"{SVG}svg"):
        width, height = float(svg.get("width")), float(svg.get("height"))
        moved = {
            text: [float(step) for step in re.findall(r"-?[\d.]+", group.get("transform"))]
            for group in svg.iter(f"{SVG}g")
            if group.get("transform", "").startswith("translate")
            for text in group.iter(f"{SVG}text")
        }
        for text in svg.iter(f"{SVG}text"):
            x, y = (float(text.get(axis, 0)) + step for axis, step in zip("xy", moved.get(text, (0, 0)), strict=True))
            assert 0 <= x <= width
            assert 0 < y <= height
        for rect in svg.iter(f"{SVG}rect"):
            assert float(rect.get("x")) + float(rect.get("width")) <= width + 0.1
            assert float(rect.get("y")) + float(rect.get("height")) <= height + 0.1


def test_each_language_has_its_words():
    english, japanese = draw(FIGURES["attention"], "en"), draw(FIGURES["attention"], "ja")
    assert {"head 0", "query ↓", "key →", "attention weight"} <= set(drawn_texts(english))
    assert {"ヘッド0", "クエリ ↓", "キー →", "注意の重み"} <= set(drawn_texts(japanese))
    assert "As a table" in english
    assert "表で見る" in japanese
    own = draw(FIGURES["attention"], rows="Satz", columns="Wort", heads=["a", "b", "c", "d"])
    assert {"Satz ↓", "Wort →", "a", "d"} <= set(drawn_texts(own))


def test_a_row_over_the_patches_of_an_image():
    rows = [[0.4, 0.1, 0.2, 0.03, 0.07, 0.06, 0.14], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    markup = draw(kept("attention", {"w": rows}, grid=[2, 3], extra=1), rows="down", columns="right")
    assert tables(markup)[0] == [["", "0", "1", "2"], ["0", "0.1", "0.2", "0.03"], ["1", "0.07", "0.06", "0.14"]]
    assert tables(markup)[1][2] == ["1", "0", "1", "0"], "the fifth patch: row 1, column 1"
    assert [text for text in drawn_texts(markup) if "other" in text] == ["other keys: 0.40", "other keys: 0.00"]
    assert "head 0: down (row), right (column) (other keys: 0.40)" in markup
    whole = draw(kept("attention", {"w": [row[1:] for row in rows[1:]]}, grid=[2, 3]))
    assert not [text for text in drawn_texts(whole) if "other" in text]


def test_what_a_large_image_leaves_to_other_keys_is_in_its_table():
    rows = [[0.25, *(0.75 * weight for weight in softmax_rows(1, 300, head)[0])] for head in range(20)]
    markup = draw(kept("attention", {"w": rows}, grid=[15, 20], extra=1))
    (strongest,) = tables(markup)
    assert [row for row in strongest if "other keys: 0.25" in row] == [
        [f"head {h}", "other keys: 0.25"] for h in range(20)
    ]


def test_a_page_says_tokens_in_its_own_words():
    words = {"the": "その", "cat": "猫", 2: "二"}
    maps = kept("attention", {"w": softmax_rows(3, 3)}, queries=["the", "cat", 2], keys=["the", "cat", 2])
    assert {*words.values()} <= set(drawn_texts(draw(maps, "ja", tokens=words)))
    assert tables(draw(maps, "ja", tokens=words))[0][0] == ["", *words.values()]
    for kind, labels in {
        "matrix": {"rows": {"a": ["the", "cat"]}, "columns": {"a": ["cat", "the"]}},
        "bars": {"categories": ["the", "cat"]},
    }.items():
        given = {"a": [[1.0, 2.0], [3.0, 4.0]] if kind == "matrix" else [1.0, 2.0]}
        markup = draw(kept(kind, given, **labels), "ja", tokens={"cat": "猫"})
        assert "猫" in drawn_texts(markup), kind
        assert "cat" not in markup, kind
        assert "the" in drawn_texts(markup), "a label without a text of the page stays"


def test_texts_are_escaped_everywhere():
    evil = "<b>&\"'\x01"
    nodes = [{"id": "a", "text": evil, "shape": evil, "column": 0, "row": 0}]
    said = [
        draw(kept("flow", {}, nodes=nodes, edges=[]), title=evil, description=evil),
        draw(
            kept(
                "matrix",
                {evil: [[1.0, 2.0]]},
                columns={evil: [evil, evil]},
                groups={evil: [{"text": evil, "role": "q"}]},
            )
        ),
        draw(kept("attention", {evil: [[0.5, 0.5]]}, keys=[evil, "b"], queries=[evil]), rows=evil),
        draw(kept("bars", {evil: [1.0], "b": [2.0]}, categories=[evil]), x=evil),
        draw(kept("curves", {"x": [0.0, 1.0], evil: [0.0, 1.0], "b": [1.0, 0.0]}), x=evil, y=evil),
        draw(kept("blocks", {evil: (4, 4)}, groups={evil: [{"text": evil}]}, code={evil: evil})),
    ]
    for markup in said:
        assert "<b>" not in markup
        assert "\x01" not in markup
        assert "&lt;b&gt;&amp;" in markup
        tree(markup)


# Numbers


def test_the_tables_hold_the_numbers():
    weights = [softmax_rows(3, 4, h) for h in range(2)]
    two = tables(draw(kept("attention", {"w": weights}, keys=list("abcd"), queries=list("xyz"))))
    assert [table[0] for table in two] == [["", "a", "b", "c", "d"]] * 2
    for table, head in zip(two, weights, strict=True):
        assert [row[0] for row in table[1:]] == ["x", "y", "z"]
        read = [[float(cell) for cell in row[1:]] for row in table[1:]]
        assert read == [[pytest.approx(value, abs=5e-5) for value in row] for row in head]
    ((header, *rows), *_) = tables(draw(FIGURES["matrix"]))
    assert header == ["", "a", "b"]
    assert rows == [["the", "1.25", "−2.5"], ["cat", "0", "3.125"]]
    (curve,) = tables(draw(FIGURES["curves"], x="length", series={"loop": "a loop"}))
    assert curve[0] == ["length", "a loop", "packed", "low", "high"]
    read = [[float(cell.replace("−", "-")) for cell in row] for row in curve[1:]]
    assert read == [
        [pytest.approx(v, rel=1e-3) for v in (n, 3e-6 * n, 1e-6 * n, 0.8e-6 * n, 1.2e-6 * n)] for n in STEPS
    ]
    (bars,) = tables(draw(FIGURES["bars"]))
    assert bars[1:] == [["out", "2e−6", "3e−16"], ["grad", "1e−5", "2e−14"]]
    (plan,) = tables(draw(FIGURES["blocks"]))
    assert ["W3K", "in_proj_weight", "36:42", "0:24", "in_proj_weight[36:42].T"] in plan
    assert len(plan) == 1 + 12 + 12
    flow, _ = tables(draw(FIGURES["flow"]))
    assert flow[1] == ["X", "(2, 5, 24)", "X WiQ, +"]


def test_cells_show_the_numbers_of_the_table():
    markup = draw(kept("attention", {"w": [[0.125, 0.875, 0.0], [1.0, 0.0, 0.0]]}))
    assert [t for t in drawn_texts(markup) if re.fullmatch(r"0\.\d\d", t)] == [
        "0.12",
        "0.88",
    ]  # the dark cells come last
    cells = drawn_texts(draw(kept("matrix", {"m": [[1.006, -0.001], [float("-inf"), float("nan")]]})))
    assert cells[1:] == ["1.01", "0.00", "−∞", "NaN"]


def test_long_tables_are_folded():
    steps = [float(i) for i in range(1000)]
    (curve,) = tables(draw(kept("curves", {"x": steps, "y": steps})))
    assert 150 < len(curve) <= 201
    markup = draw(kept("attention", {"w": [softmax_rows(60, 60, h) for h in range(8)]}))
    (strongest,) = tables(markup)
    assert len(strongest) <= 201
    assert "160 of 480 rows" in markup
    weights = softmax_rows(60, 60, 0)[0]
    best = max(range(60), key=weights.__getitem__)
    assert strongest[1][1].startswith(f"{best} {weights[best]:.4f}".rstrip("0"))


def test_many_heads_are_read_by_shade_and_strongest_key():
    """Eight heads of 7 x 7 are too many numbers to read; four are not."""
    for heads, few in ((4, True), (8, False)):
        maps = [softmax_rows(7, 7, seed=head) for head in range(heads)]
        markup = draw(kept("attention", {"weights": maps}))
        numbers = [text for text in drawn_texts(markup) if re.fullmatch(r"0\.\d\d", text)]
        assert (len(numbers) == heads * 49) == few
        assert len(tables(markup)) == (heads if few else 1)


def test_shades_follow_the_weights():
    """The path that holds a cell is the darker, the greater its weight; a weight of 0 is no path at all."""
    markup = draw(kept("attention", {"w": [[0.0, 0.1, 0.3, 0.6]]}))
    (group,) = (g for g in tree(markup).iter(f"{SVG}g") if g.get("class") == "w")
    shades = [(float(path.get("fill-opacity")), float(path.get("d").split()[0][1:])) for path in group]
    assert [shade for shade, _ in shades] == [0.1, 0.3, 0.6]
    assert [x for _, x in shades] == sorted(x for _, x in shades)


def test_blocks_are_to_scale_and_say_what_they_are():
    root = tree(draw(FIGURES["blocks"]))
    blocks = [g for g in root.iter(f"{SVG}g") if (g.get("class") or "").startswith("block")]
    assert len(blocks) == 24
    packed = [g for g in blocks if g.get("data-matrix") == "in_proj_weight"]
    third = next(g for g in packed if g.get("data-text") == "W_3^V")
    assert dict(third.attrib) == {
        "class": "block r-v",
        "data-matrix": "in_proj_weight",
        "data-role": "v",
        "data-head": "2",
        "data-rows": "60:66",
        "data-columns": "0:24",
        "data-text": "W_3^V",
        "data-code": "in_proj_weight[60:66].T",
    }
    scales = []
    for g in blocks:
        rect = g.find(f"{SVG}rect")
        for axis, side in (("rows", "height"), ("columns", "width")):
            a, b = map(int, g.get(f"data-{axis}").split(":"))
            scales.append((float(rect.get(side)) + 1.5) / (b - a))  # 1.5: the gap around a block
    assert scales == [pytest.approx(scales[0], abs=0.02)] * 48
    opacities = {
        g.get("data-head"): g.find(f"{SVG}rect").get("fill-opacity") for g in packed if g.get("data-role") == "q"
    }
    assert len(set(opacities.values())) == 4


def test_a_box_of_a_diagram_holds_a_matrix():
    markup = draw(FIGURES["flow"])
    strong, weak, faint = (
        next(path for path in tree(markup).iter(f"{SVG}path") if path.get("fill-opacity") == share)
        for share in ("1", "0.5", "0.2")
    )
    assert "z" in strong.get("d")[:-1], "a number below 0 is hollow: its square has a hole"
    assert weak.get("d").count("z") == faint.get("d").count("z") == 1
    assert "(2, 2)" in drawn_texts(markup), "the shape is the tensor's own"
    assert tables(markup)[1][1:] == [["0", "0.5", "−1"], ["1", "0", "0.2"]]


def test_curves_break_where_a_value_is_missing():
    markup = draw(kept("curves", {"x": [0.0, 1.0, 2.0, 3.0, 4.0], "y": [0.0, 1.0, None, 1.0, 0.0]}))
    (line,) = (p for p in tree(markup).iter(f"{SVG}path") if (p.get("class") or "").startswith("v"))
    assert line.get("d").count("M") == 2


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1, False, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-1, 1, False, ["−1", "−0.5", "0", "0.5", "1"]),
        (3, 97, False, ["20", "40", "60", "80"]),
        (0.001, 10, True, ["0.001", "0.01", "0.1", "1", "10"]),
        (1e-5, 1, True, ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]),
        (16, 100, True, ["20", "30", "50", "70", "100"]),
    ],
)
def test_ticks_are_round(low, high, log, expected):
    axis = Axis(low, high, 0, 300, log)
    assert list(axis.names(axis.ticks()).values()) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (1.5, "1.5"),
        (-0.25, "−0.25"),
        (1234, "1234"),
        (3e-16, "3×10⁻¹⁶"),
        (1e-5, "10⁻⁵"),
        (2.55e6, "2.55×10⁶"),
    ],
)
def test_numbers_are_written_for_readers(value, said):
    assert written(value) == said


# Symbols


def test_symbols_have_true_indices():
    assert re.sub(r'"[^"]*"', "", typeset("W_1^Q")).count("<tspan") == 3
    assert typeset("in_proj_weight") == "in_proj_weight"
    assert typeset("c_attn.weight") == "c_attn.weight", "a name with a dot in it is no letter with an index"
    assert "<tspan" in typeset("by d_k. Then")
    assert typeset("w_q_2 and my_k") == "w_q_2 and my_k"
    assert 'class="s i"' in typeset("head_i")
    for text in ("d_k", "W_1^Q", "K_i^⊤ / √d_k", "10^6 steps", "x_{12} = y"):
        # The pen returns to the line: whatever follows a symbol stands on the baseline.
        shifts = [float(dy) for dy in re.findall(r'dy="([-\d.]+)"', typeset(text + " end"))]
        assert sum(shifts) == pytest.approx(0, abs=0.11)
    assert width_of("W_1^Q") < width_of("W_1^{QKV}")
    assert width_of("注意") == 2 * TEXT


# What is refused


GOOD = softmax_rows(2, 3)


def box(size=1, value=1.0, **node):
    """A diagram of one box, and a tensor "a"."""
    return kept("flow", {"a": [[value] * size]}, nodes=[{"id": "n", "column": 0, "row": 0, **node}])


REFUSED = {
    "does not sum to 1": (kept("attention", {"w": [[0.5, 0.5], [0.5, 0.6]]}), {}, r"row 1 sums to 1\.1"),
    "head is named": (kept("attention", {"w": [GOOD, [[1.0, 0, 0], [0.5, 0, 0]]]}), {}, "row 1 of head 1 sums to 0.5"),
    "logits": (kept("attention", {"w": [[2.0, -1.0]]}), {}, "below 0"),
    "NaN": (kept("attention", {"w": [[None, None]]}), {}, "sums to nan"),
    "half masked": (kept("attention", {"w": [[None, 1.0]]}, masked=True), {}, "sums to nan"),
    "transposed": (kept("attention", {"w": [list(c) for c in zip(*GOOD, strict=True)]}), {}, "not 1"),
    "queries": (kept("attention", {"w": GOOD}, queries=["a", "b", "c"]), {}, "2 queries, but 3"),
    "keys": (kept("attention", {"w": GOOD}, keys=["a", "b"]), {}, "3 keys, but 2"),
    "heads": (kept("attention", {"w": [GOOD, GOOD]}, heads=["only"]), {}, "2 heads, but 1"),
    "grid and its keys": (
        kept("attention", {"w": GOOD}, grid=[2, 2]),
        {},
        "have 3 keys, and 0 extra and a grid of 2 by 2 are 4",
    ),
    "grid of whole maps": (kept("attention", {"w": [GOOD]}, grid=[1, 3]), {}, r"needed is \(H, S\): one row a head"),
    "fewer than no key": (
        kept("attention", {"w": GOOD}, grid=[2, 2], extra=-1),
        {},
        r"extra at least 0: not \[2, 2\] and -1",
    ),
    "grid of no rows": (kept("attention", {"w": GOOD}, grid=[-1, -3]), {}, r"both at least 1.*not \[-1, -3\]"),
    "grid of one number": (kept("attention", {"w": GOOD}, grid=3), {}, "not 3 and 0"),
    "extra without grid": (kept("attention", {"w": GOOD}, extra=1), {}, "there is no 'grid'"),
    "heads of the page": (kept("attention", {"w": [GOOD, GOOD]}), {"heads": ["one"]}, "2 heads, but 1"),
    "two tensors": (kept("attention", {"a": GOOD, "b": GOOD}), {}, "one tensor, not 2"),
    "a mask of another shape": (
        kept("attention", {"m": [[True]], "w": GOOD}),
        {},
        r"mask 'm' has shape \(1, 1\), its maps have \(2, 3\)",
    ),
    "a mask alone": (kept("attention", {"m": [[True, False]]}), {}, "one tensor, not 0"),
    "four axes": (kept("attention", {"w": [[[[1.0]]]]}), {}, "needed is"),
    "role": (kept("blocks", {"m": (4, 4)}, groups={"m": [{"role": "query"}]}), {}, "role 'query'"),
    "range": (kept("blocks", {"m": (4, 4)}, groups={"m": [{"rows": [2, 5]}]}), {}, "not a range inside 0:4"),
    "other matrix": (kept("blocks", {"m": (4, 4)}, groups={"n": []}), {}, "groups names 'n'"),
    "no groups": (kept("blocks", {"m": (4, 4)}), {}, "need labels"),
    "operators": (kept("matrix", {"a": [[1.0]], "b": [[1.0]]}, operators=["@", "="]), {}, "2 operators between 2"),
    "ticks": (kept("matrix", {"a": [[1.0, 2.0]]}, columns={"a": ["x"]}), {}, "2 columns, but 1"),
    "mark": (kept("matrix", {"a": [[1.0]]}, mark={"a": [[1, 0]]}), {}, "mark names cell"),
    "label": (kept("matrix", {"a": [[1.0]]}, colour="red"), {}, "do not know 'colour'"),
    "no x": (kept("curves", {"y": [1.0, 2.0]}), {}, "has no x"),
    "other length": (kept("curves", {"x": [1.0], "y": [1.0, 2.0]}), {}, "2 values for 1"),
    "log of 0": (kept("curves", {"x": [0.0], "y": [1.0]}, log=["x"]), {}, "no finite number"),
    "series": (kept("curves", {"x": [1.0], "y": [1.0]}), {"series": {"z": "…"}}, "series names 'z'"),
    "categories": (kept("bars", {"y": [1.0]}, categories=["a", "b"]), {}, "for 2 categories"),
    "no categories": (kept("bars", {"y": [1.0]}), {}, "need labels"),
    "edge": (kept("flow", {}, nodes=[{"id": "a", "column": 0, "row": 0}], edges=[["a", "b"]]), {}, "edges names 'b'"),
    "upwards": (
        kept("flow", {}, nodes=[{"id": i, "column": 0, "row": i} for i in (0, 1)], edges=[[1, 0]]),
        {},
        "not lead downwards",
    ),
    "one place": (kept("flow", {}, nodes=[{"id": i, "column": 0, "row": 0} for i in (0, 1)]), {}, "place of another"),
    "a token that nothing has": (
        kept("attention", {"w": GOOD}, keys=["a", "b", "c"]),
        {"tokens": {"d": "…"}},
        "tokens names 'd'",
    ),
    "tokens of a diagram": (
        kept("flow", {}, nodes=[{"id": "a", "column": 0, "row": 0}]),
        {"tokens": {"a": "…"}},
        "'tokens' says nothing",
    ),
    "cells of no tensor": (box(cells="b"), {}, "cells names 'b'"),
    "a tensor in no box": (box(), {}, "tensors names 'a'"),
    "cells of a large matrix": (box(17, cells="a"), {}, "at most 16 a side"),
    "cells that are not finite": (box(1, None, cells="a"), {}, "no shade shows"),
    "kind": (kept("pie", {"a": [1.0]}), {}, "kind 'pie' is unknown"),
    "text of another kind": (kept("matrix", {"a": [[1.0]]}), {"y": "height"}, "'y' says nothing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    figure, texts, message = REFUSED[case]
    with pytest.raises(Refused, match=message):
        draw(figure, **texts)


def test_masked_rows_are_allowed_when_said():
    rows = [[None, None], [0.0, 0.0], [0.25, 0.75]]
    markup = draw(kept("attention", {"w": rows}, masked=True))
    assert "NaN" in drawn_texts(markup)
    with pytest.raises(Refused):
        draw(kept("attention", {"w": rows}))


def test_a_mask_stands_before_the_maps_that_it_makes():
    mask = [[True, False, False], [False, True, True]]
    one = draw(kept("attention", {"attn_mask": mask, "w": [GOOD, GOOD]}, queries=["a", "b"]))
    assert [label for label in drawn_texts(one) if label in ("attn_mask", "head 0", "head 1")] == [
        "attn_mask",
        "head 0",
        "head 1",
    ]
    assert drawn_texts(one).count("True") == 3
    (path,) = re.findall(r'<path [^>]*class="tr"[^>]*>', one)
    assert path.count("z") == 3
    assert tables(one)[0][1:] == [["a", "True", "False", "False"], ["b", "False", "True", "True"]]
    each = draw(kept("attention", {"m0": mask, "m1": mask, "w": [GOOD, GOOD]}))
    assert [label for label in drawn_texts(each) if label[:2] in ("m0", "m1", "he")] == ["m0", "head 0", "m1", "head 1"]


def test_rounding_of_float32_is_no_fault():
    draw(kept("attention", {"w": [[0.33333334, 0.33333334, 0.33333334]]}))


# A flow's arrows


def points(d):
    """Where the pen of a path turns: of its first part, which is followed by steps."""
    x = y = 0.0
    found = []
    for command, said in re.findall(r"([Mhvlq])([^A-Za-z]*)", "M" + d.split("M")[1]):
        lengths = [float(length) for length in re.findall(r"-?[\d.]+", said)]
        if command in "hv":
            lengths = [0.0, *lengths] if command == "v" else [*lengths, 0.0]
        for dx, dy in zip(lengths[::2], lengths[1::2], strict=True):
            found.append((x + dx, y + dy))
        x, y = found[-1]
    return found


@pytest.mark.parametrize(
    ("places", "steps"),
    [
        ("M1 2L1 5L4 5", "M1 2v3h3"),
        ("M1.2 2L2.3 1.5L4 5.5z", "M1.2 2l1.1-0.5 1.7 4z"),
        ("M1 2H5V7M1 3H5", "M1 2h4v5M1 3h4"),
        ("M1 2Q3 2 3 4L0 0", "M1 2q2 0 2 2l-3-4"),
        ("M0 0h8v8h-8zm2 2v4z", "M0 0h8v8h-8zm2 2v4z"),
        ("M1 2a3 3 0 1 0 6 0z", "M1 2a3 3 0 1 0 6 0z"),
        ("M0.1 0L0.3 0L0.4 0.1", "M0.1 0h0.2l0.1 0.1"),
    ],
)
def test_a_path_is_written_in_steps(places, steps):
    assert drawing.in_steps(places) == steps


@pytest.mark.parametrize("seed", range(20))
def test_arrows_run_around_boxes(seed):
    """On random flows no arrow crosses a box, and each ends on the edge of its target."""
    chance = random.Random(seed)
    places = chance.sample([(c, r) for c in range(3) for r in range(5)], 8)
    nodes = [
        {"id": str(i), "text": "n" * chance.randint(1, 9), "column": c, "row": r} for i, (c, r) in enumerate(places)
    ]
    down = [(a, b) for a in nodes for b in nodes if a["row"] < b["row"]]
    edges = [[a["id"], b["id"]] for a, b in chance.sample(down, min(9, len(down)))]
    root = tree(draw(kept("flow", {}, nodes=nodes, edges=edges)))
    boxes = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")]
    lines = [p.get("d") for p in root.iter(f"{SVG}path") if p.get("class") == "e"]
    assert len(lines) == len(edges)
    for line, (_, to) in zip(lines, edges, strict=True):
        way = points(line)
        x, y, w, _ = boxes[int(to)]
        assert x <= way[-1][0] <= x + w
        assert way[-1][1] == pytest.approx(y, abs=0.2)
        for (x0, y0), (x1, y1) in pairwise(way):
            for x, y, w, h in boxes:
                for t in (0.25, 0.5, 0.75):
                    px, py = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
                    assert not (x + 1 < px < x + w - 1 and y + 1 < py < y + h - 1), (line, (x, y, w, h))


# Reading: contrast, size, bytes


def scheme(selector):
    block = re.search(re.escape(selector) + r" \{(.*?)\}", CSS.read_text(encoding="utf-8"), re.S)[1]
    found = dict(re.findall(r"--figure-([\w-]+): #([0-9a-f]{3,6});", block))
    return {k: tuple(int((v * 2 if len(v) == 3 else v)[i : i + 2], 16) for i in (0, 2, 4)) for k, v in found.items()}


LIGHT = scheme(":root")
DARK = {**LIGHT, **scheme('[data-md-color-scheme="slate"]')}
PAPERS = {"light": (LIGHT["paper"], LIGHT), "dark": (DARK["paper"], DARK)}


def over(paper, colour, share):
    return tuple(p + (c - p) * share for p, c in zip(paper, colour, strict=True))


def contrast(a, b):
    def light(colour):
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a) + 0.05, light(b) + 0.05), reverse=True)
    return high / low


@pytest.mark.parametrize("name", PAPERS)
def test_text_can_be_read_in_both_schemes(name):
    paper, colours = PAPERS[name]
    for text in ("ink", "soft", *(f"{role}-text" for role in ROLES)):
        assert contrast(paper, colours[text]) >= 4.5, text
    for role in ROLES:
        for share in (0.06, 0.13, 0.16, 0.28, 0.42):  # of heads and of boxes in a flow
            assert contrast(over(paper, colours[role], share), colours["ink"]) >= 4.5, (role, share)
        assert contrast(paper, colours[role]) >= 3 or role == "o", role
    for share in (0.06, 0.16):
        assert contrast(over(paper, colours["x"], share), colours["soft"]) >= 4.5
    for series in "12345":
        assert contrast(paper, colours[series]) >= 3


def test_the_paper_is_the_page():
    """Figures have no ground of their own: they are read on the page's colour, white or the one of the dark scheme."""
    (dark,) = re.findall(r"--md-default-bg-color: #(\w+);", CSS.with_name("site.css").read_text(encoding="utf-8"))
    assert [paper for paper, _ in PAPERS.values()] == [(255, 255, 255), tuple(bytes.fromhex(dark))]


@pytest.mark.parametrize("name", PAPERS)
def test_what_marks_nan_can_be_seen(name):
    paper, colours = PAPERS[name]
    css = CSS.read_text(encoding="utf-8")
    maps = tree(draw(kept("attention", {"w": [[0.5, 0.5], [math.nan] * 2]}, masked=True)))
    marks = [
        path for svg in maps.iter(f"{SVG}svg") for path in svg.iter(f"{SVG}path") if "fill-opacity" not in path.attrib
    ]
    assert len(marks) == 2, "the cells' and the legend's"
    for mark in marks:
        stroke = re.search(rf"\.figure__svg (?:path)?\.{mark.get('class')} {{ stroke: var\(--figure-(\w+)\)", css)[1]
        assert contrast(paper, colours[stroke]) >= 3, stroke


@pytest.mark.parametrize("name", PAPERS)
def test_numbers_can_be_read_on_every_shade(name):
    paper, colours = PAPERS[name]
    for step in range(51):
        shade = step / 50
        cell = over(paper, colours["scale"], shade)
        weak, middling = shade <= attention.DARK_TURNS, shade <= attention.LIGHT_TURNS
        text = colours["on-weak"] if weak else (0, 0, 0) if middling else colours["on-strong"]
        assert contrast(cell, text) >= 4.5, shade


@pytest.mark.parametrize("kind", FIGURES)
def test_text_is_large_enough_on_a_phone(kind):
    """A picture either fits a phone with text of 11 px or more, or keeps its size in a box that scrolls."""
    markup = draw(FIGURES[kind])
    root = tree(markup)
    scrolled = {svg for box in root.iter(f"{HTML}div") if box.get("tabindex") == "0" for svg in box.iter(f"{SVG}svg")}
    for svg in root.iter(f"{SVG}svg"):
        small = any("z" in (node.get("class") or "").split() for node in svg.iter())
        least = SMALL if small else TEXT
        if svg not in scrolled:
            assert least * min(1, PHONE / float(svg.get("width"))) >= LEAST - 0.05
        else:
            assert "figure__svg--wide" in svg.get("class")


def test_a_wide_matrix_scrolls():
    root = tree(draw(kept("matrix", {"m": [[0.5] * 24] * 3})))
    (box,) = (d for d in root.iter(f"{HTML}div") if d.get("tabindex") == "0" and list(d.iter(f"{SVG}svg")))
    assert box.get("aria-label")
    assert box.get("role")


@pytest.mark.parametrize("kind", ["attention", "blocks"])
def test_figures_are_small(kind):
    size = len(gzip.compress(draw(FIGURES[kind]).encode()))
    assert size <= 4096, size


# A page


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Turns Markdown into HTML as MkDocs would, with two figures kept by layouts/rosetta.py; returns (html, faults)."""
    records = tmp_path / "layouts"
    records.mkdir()
    kept_there = {"rosetta": FIGURES["attention"], "bad": kept("attention", {"w": [[0.5, 0.4]]})}
    (records / "rosetta.figures.json").write_text(json.dumps(kept_there), encoding="utf-8")
    (records / "in_parts.figures.json").write_text(json.dumps({"flow": FIGURES["flow"]}), encoding="utf-8")
    monkeypatch.setattr(project, "RECORDS", tmp_path)
    monkeypatch.setattr(project, "DOCS", tmp_path / "docs")

    def convert(text, source=None):
        shown = Page("en", "layouts/rosetta.md")
        path = project.DOCS / "en" / shown.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source or text, encoding="utf-8")
        md = markdown.Markdown(extensions=["admonition", "attr_list", "md_in_html", "pymdownx.superfences", Dialect()])
        return md.convert(figures.put(text, shown)), shown.faults

    return convert


BODY = "title: A title\ndescription: What is seen.\n"


def test_a_fence_becomes_a_figure(page):
    html, faults = page(f"Before.\n\n```figure rosetta\n{BODY}```\n\nAfter.\n")
    assert not faults
    assert html.startswith("<p>Before.</p>")
    assert html.endswith("<p>After.</p>")
    assert html.count("<figure ") == 1
    assert "A title" in html
    tree(html)


def test_ids_stay_unique_and_boxes_hold_figures(page):
    inside = "".join(f"    {line}\n" for line in f"```figure rosetta\n{BODY}```".splitlines())
    html, faults = page(
        f"```figure rosetta\n{BODY}```\n\n!!! note\n\n{inside}\n~~~figure layouts/in-parts:flow\n{BODY}~~~\n"
    )
    assert not faults
    ids = [node.get("id") for node in tree(html).iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert {"figure-rosetta", "figure-rosetta-2", "figure-flow"} <= set(ids)
    assert re.search(r'<div class="admonition note">.*id="figure-rosetta-2".*</div>', html, re.S)


def test_a_figure_that_is_only_quoted_stays_text(page):
    html, faults = page(f"````text\n```figure nowhere\n{BODY}```\n````\n")
    assert not faults
    assert "```figure nowhere" in entities.unescape(re.sub(r"<[^>]+>", "", html))


@pytest.mark.parametrize(
    ("fence", "line", "message"),
    [
        ("```figure nowhere\n" + BODY + "```", 5, "keeps no figure 'nowhere'; it keeps: rosetta, bad"),
        (
            "```figure other/page:rosetta\n" + BODY + "```",
            5,
            "snippets/other/page.py keeps no figure 'rosetta'; it keeps: none",
        ),
        ("```figure\n" + BODY + "```", 5, "keeps no figure ''"),
        ("```figure rosetta\ntitle: A\n```", 5, "needs description:"),
        ("```figure rosetta\n```", 5, "at least the lines title: and description:"),
        (f"```figure rosetta\n{BODY}colour: red\n```", 5, "does not know 'colour'"),
        (f"```figure rosetta\n{BODY}y: height\n```", 5, "figure 'rosetta': 'y' says nothing"),
        (f"```figure rosetta\n{BODY}rows: a: b\n```", 8, "quote a text with a colon"),
        (f"```figure rosetta\n{BODY}rows: token and ##izer\n```", 5, "what stands behind ' #' is a comment"),
    ],
)
def test_faults_name_page_and_line(page, fence, line, message):
    matter = "---\nhide: [toc]\n---\n"
    _, faults = page(f"\n{fence}\n", source=f"{matter}\n{fence}\n")
    (fault,) = faults
    assert (fault.file, fault.line) == ("docs/en/layouts/rosetta.md", line)
    assert message in fault.message


def test_a_fault_of_the_numbers_names_script_and_page(page):
    _, (fault,) = page(f"```figure bad\n{BODY}```\n")
    assert (fault.file, fault.line) == ("snippets/layouts/rosetta.py", 7)
    assert "figure 'bad'" in fault.message
    assert "docs/en/layouts/rosetta.md:1" in fault.message
    assert "sums to 0.9" in fault.message


def test_every_fault_of_a_page_is_told_at_once(page):
    _, faults = page(f"```figure bad\n{BODY}```\n\n```figure nowhere\n{BODY}```\n")
    assert len(faults) == 2


# A browser, with Material's own style sheet around ours


MEASURE = """() => [...document.querySelectorAll('.figure svg')].map(svg => {
  const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll('text')], spans = [...svg.querySelectorAll('text, tspan')];
  // a font's box is taller than its letters: Noto Sans CJK has 1.45 em
  const air = t => 1 + 0.25 * scale * parseFloat(getComputedStyle(t).fontSize);
  const out = t => { const r = t.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - air(t) || r.bottom > box.bottom + air(t); };
  return {
    least: Math.min(99, ...spans.map(t => scale * parseFloat(getComputedStyle(t).fontSize))),
    clipped: texts.filter(out).map(t => t.textContent),
  };
})"""


@pytest.mark.parametrize("language", ["ja", "en"])
def test_on_a_phone_text_is_large_and_whole(chromium, language):
    """At 360 px every text is 11 px or more and inside its picture, and only scroll boxes are wider than the window."""
    import material

    theme = Path(material.__file__).parent / "templates" / "assets" / "stylesheets"
    css = "".join(next(theme.glob(f"{name}.*.min.css")).read_text(encoding="utf-8") for name in ("main", "palette"))
    tokens = ["The", "animal", "didn’t", "cross", "the", "street", "because", "it", "was", "tired"]
    causal = [softmax_rows(1, i + 1, i)[0] + [0.0] * (9 - i) for i in range(10)]
    more = [
        draw(kept("attention", {"w": causal}, queries=tokens, keys=tokens), language, "words"),
        draw(kept("attention", {"w": [softmax_rows(40, 50)] * 2}), language, "long"),
        draw(kept("matrix", {"m": [[0.5] * 24] * 3}), language, "wide"),
    ]
    shown = "".join(draw(figure, language, kind) for kind, figure in FIGURES.items()) + "".join(more)
    page = chromium.new_page(viewport={"width": 360, "height": 800})
    page.set_content(
        f'<!DOCTYPE html><html lang="{language}"><head><meta name="viewport" content="width=device-width">'
        f"<style>{css}{CSS.read_text(encoding='utf-8')}</style></head>"
        f'<body data-md-color-scheme="default"><article class="md-typeset">{shown}</article></body></html>'
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    pictures = page.evaluate(MEASURE)
    page.close()
    assert len(pictures) > 20
    assert min(picture["least"] for picture in pictures) >= 10.9
    assert not [(n, picture["clipped"]) for n, picture in enumerate(pictures) if picture["clipped"]]


COLOUR = re.compile(
    r"(?<![\w&/(-])#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})\b|\b(?:rgb|hsl|hwb|lab|lch|oklab|oklch)a?\(", re.I
)
TYPED = re.compile(r"^ *--[\w-]+:[^;]*;", re.M)


def test_a_colour_is_typed_as_a_custom_property_and_nowhere_else():
    """In site.css and figures.css; the icon, which can read no style sheet, has the colours of the roles."""
    kinds = (".css", ".js", ".html", ".svg", ".py", ".xml")
    folders = [*(project.DOCS / name for name in ("shared", "root", "theme")), project.ROOT / "builder"]
    typed = []
    for path in sorted(path for folder in folders for path in folder.rglob("*.*") if path.suffix in kinds):
        text = path.read_text("utf-8")
        if path.name == "icon.svg":
            fills = re.findall(r'(?:fill|stroke)="(#\w+)"', text)
            roles = colours.of("light")
            assert fills == [roles[f"--figure-{name}"] for name in ("q", "k", "v", "on-role")]
        else:
            bare = TYPED.sub("", text) if path.name in colours.HOMES else text
            typed += [f"{path.relative_to(project.ROOT)}: {found[0]}" for found in COLOUR.finditer(bare)]
    assert typed == []


def test_what_stands_alone_has_the_sites_colours(site):
    doors = (site / "doors.css").read_text("utf-8")
    light, dark = doors.split("@media (prefers-color-scheme: dark)")
    for scheme, part in (("light", light), ("dark", dark)):
        assert f"--accent: {colours.of(scheme)['--md-typeset-a-color']};" in part
    assert "var(--md" not in doors
    assert colours.of("light") != colours.of("dark")
