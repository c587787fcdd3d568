"""The take-home heat map shows the numbers it was given, on the axes it says, and refuses what is no attention map."""

import io
import sys
import warnings

import attention_map as recipe
import matplotlib as mpl
import numpy as np
import pytest
import torch
from attention_map import attention_map, attention_overview
from matplotlib import colormaps, font_manager

H, L, S = 3, 4, 6


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return torch.randn(H, L, S).mul(2).softmax(-1)


def panels(figure):
    return [axis for axis in figure.axes if axis.images and axis.get_visible() and axis.get_label() != "<colorbar>"]


def labels(axis):
    return [t.get_text() for t in axis.get_yticklabels()], [t.get_text() for t in axis.get_xticklabels()]


def test_every_head_has_a_panel_with_its_own_numbers(weights):
    figure = attention_map(weights, list("abcd"), list("uvwxyz"), title="three heads")
    assert [axis.get_title() for axis in panels(figure)] == ["head 0", "head 1", "head 2"]
    for axis, head in zip(panels(figure), weights, strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), head, rtol=1e-6)
        assert labels(axis) == (list("abcd"), list("uvwxyz"))
        assert axis.images[0].get_clim() == (0, pytest.approx(weights.max().item()))
        assert axis.get_xlabel() == "key"
        assert axis.get_ylim()[0] > axis.get_ylim()[1], "query 0 stands at the top"
    assert panels(figure)[0].get_ylabel() == "query"
    assert figure.get_suptitle() == "three heads"


def test_one_head_and_named_heads(weights):
    assert [axis.get_title() for axis in panels(attention_map(weights[0]))] == [""]
    assert [axis.get_title() for axis in panels(attention_map(weights, heads="xyz"))] == ["x", "y", "z"]


def test_keys_are_the_queries_where_the_map_is_square():
    square = torch.eye(3)
    assert labels(panels(attention_map(square, ["I", "am", "he"]))[0]) == (["I", "am", "he"],) * 2
    with pytest.raises(ValueError, match="keys: expected 3 labels, got 2"):
        attention_map(square, ["I", "am", "he"], ["I", "am"])


def test_the_weight_that_is_drawn_darkest_is_the_greatest(weights):
    """Light paper: more is darker. Dark paper: more is lighter. Lightness falls or rises throughout."""
    for dark, direction in ((False, -1), (True, 1)):
        figure = attention_map(weights, dark=dark)
        image = panels(figure)[0].images[0]
        shades = colormaps[image.get_cmap().name](np.linspace(0, 1, 64))[:, :3] @ [0.2126, 0.7152, 0.0722]
        assert np.all(np.diff(shades) * direction > -1e-3)
        assert (np.mean(figure.get_facecolor()[:3]) < 0.5) == dark


def test_an_overview_has_a_row_for_each_layer(weights):
    maps = {"layers.0": torch.stack([weights, weights.flip(1)]), "layers.1": torch.eye(5).expand(2, 2, 5, 5)}
    figure = attention_overview(maps, sample=1)
    drawn = panels(figure)
    assert [axis.get_title() for axis in drawn] == ["layers.0  0", "1", "2", "layers.1  0", "1"]
    np.testing.assert_allclose(drawn[0].images[0].get_array(), weights.flip(1)[0], rtol=1e-6)
    rows = [axis.get_subplotspec().rowspan.start for axis in drawn]
    assert rows == [0, 0, 0, 1, 1]


def test_what_capture_records_can_be_drawn():
    from capture import attention_weights

    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(24, 4, 16, batch_first=True), 2).eval()
    with attention_weights(model) as maps:
        model(torch.randn(2, 5, 24))
    assert len(panels(attention_overview(maps))) == 8


def test_pictures_are_files_and_nothing_stays_open(weights, tmp_path):
    attention_map(weights, list("abcd"), list("uvwxyz")).savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert "matplotlib.pyplot" not in sys.modules or not mpl.pyplot.get_fignums()


@pytest.mark.skipif(not set(recipe.CJK_FONTS) & set(font_manager.get_font_names()), reason="no CJK font is installed")
def test_japanese_labels_get_a_font_that_has_them(tmp_path):
    before = list(mpl.rcParams["font.family"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing glyph when it draws
        figure = attention_map(torch.eye(3), ["注意", "の", "重み"])
        figure.savefig(tmp_path / "map.png")
    families = panels(figure)[0].get_yticklabels()[0].get_fontfamily()
    assert set(families) & set(recipe.CJK_FONTS)
    assert list(mpl.rcParams["font.family"]) == before


def test_a_font_whose_name_matplotlib_cannot_read_is_none(monkeypatch):
    """It bundles "Last Resort High-Efficiency", which has every letter."""
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "Last Resort High-Efficiency"])
    with pytest.warns(UserWarning, match="no installed font has 'ส'"):
        attention_map(torch.ones(1, 1), ["ส"]).savefig(io.BytesIO())


def test_a_letter_that_no_font_has_is_told(monkeypatch):
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans"])
    with pytest.warns(UserWarning, match="no installed font has '注'"):
        recipe.fonts_for("a注")


def transposed(weights):
    return weights.transpose(-1, -2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (transposed, r"weights: the columns sum to 1 and the rows do not: transposed\? Rows are queries"),
        (
            lambda w: w * (torch.arange(L) != 2)[:, None],
            r"weights: row \[0, 2\] sums to 0, not to 1 \(padding: cut it off\)",
        ),
        (
            lambda w: torch.nn.functional.dropout(w, 0.3),
            r"weights: row \[0, 0\] sums to .*, not to 1 \(dropout: record before it\)",
        ),
        (
            lambda w: w[..., :4],
            r"weights: row \[0, 0\] sums to 0\.\d+, not to 1 \(keys cut off, or a sink that takes the rest\)",
        ),
        (
            lambda w: w[:, 1].reshape(H, 2, 3),
            r"weights: row \[0, 0\] sums to 0\.\d+, not to 1 \(one query over an image: give its row, and grid=\(h, w\)\)",
        ),
        (lambda w: w[:, 1, 2:].reshape(H, 2, 2), r"\(one query over an image: give its row, and grid=\(h, w\)\)"),
        (lambda w: w - 0.3, "weights: expected weights of at least 0, got -0.3: are these scores"),
        (lambda w: w / 0 * 0, "weights: expected finite numbers, got NaN or inf"),
        (lambda w: w[None], r"weights: expected \(L, S\) or \(H, L, S\), got \(1, 3, 4, 6\)"),
        (lambda w: w[:, :0], r"weights: expected .*, got \(3, 0, 6\)"),
    ],
    ids=[
        "transposed",
        "padding",
        "dropout",
        "fewer keys",
        "image",
        "image without a class token",
        "scores",
        "nan",
        "batch",
        "empty",
    ],
)
def test_what_is_no_attention_map_is_refused(weights, change, message):
    with pytest.raises(ValueError, match=message):
        attention_map(change(weights))


@pytest.mark.parametrize(
    ("queries", "keys", "message"),
    [
        ("abc", "uvwxyz", "queries: expected 4 labels, got 3$"),
        ("abcd", "uvw", "keys: expected 6 labels, got 3$"),
        ("uvwxyz", "abcd", r"queries: expected 4 labels, got 6: swapped\? Rows are queries"),
    ],
)
def test_labels_that_do_not_fit_are_refused(weights, queries, keys, message):
    with pytest.raises(ValueError, match=message):
        attention_map(weights, queries, keys)


def test_names_of_heads_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="heads: expected 3 names, got 2"):
        attention_map(weights, heads=["a", "b"])


def test_an_overview_over_tokens_cuts_the_padding_off(weights):
    padded = torch.zeros(2, 4, 8, 8)
    padded[0, :, :5, :5] = torch.rand(4, 5, 5).softmax(-1)  # sample 1 is padding throughout
    figure = attention_overview({"a": padded, "b": padded[0]}, "ABCDE")
    for panel in panels(figure):
        assert panel.images[0].get_array().shape == (5, 5)
        assert [label.get_text() for label in panel.get_yticklabels()] == list("ABCDE")
    with pytest.raises(ValueError, match=r"padding: cut it off"):
        attention_overview({"a": padded})
    with pytest.raises(ValueError, match=r"maps\['a'\]: expected a square of 9 tokens or more, got 8 by 8"):
        attention_overview({"a": padded}, "ABCDEFGHI")


def test_an_overview_of_a_sample_padded_on_the_left():
    maps = {"a": torch.eye(5).expand(2, 5, 5)}
    for panel in panels(attention_overview(maps, [None, None, "A", "B", "C"])):
        assert torch.equal(torch.tensor(panel.images[0].get_array()), torch.eye(3).double())
        assert [label.get_text() for label in panel.get_xticklabels()] == list("ABC")


def test_long_labels_of_many_panels_stay_apart():
    tokens = [f"understandably{i}" for i in range(6)]
    figure = attention_overview({f"layer {i}": torch.rand(3, 6, 6).softmax(-1) for i in range(6)}, tokens)
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in panels(figure)]
    for i, one in enumerate(boxes):
        assert one.x0 >= 0
        assert one.y0 >= 0
        for other in boxes[i + 1 :]:
            assert not one.overlaps(other)


def test_dollars_are_no_formula(tmp_path):
    figure = attention_map(torch.eye(2), ["$$", "$_$"], title="from $5 to $10", heads=["$x$"])
    figure.savefig(tmp_path / "dollars.png")
    (panel,) = panels(figure)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["$$", "$_$"]


def test_a_title_wider_than_the_figure_is_broken():
    figure = attention_map(
        torch.eye(3), title="the first head of the first layer on a sentence that is rather long, over words"
    )
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_an_overview_of_nothing_or_of_several_calls_is_refused(weights):
    with pytest.raises(ValueError, match="at least one layer, got none"):
        attention_overview({})
    with pytest.raises(ValueError, match="one map a layer, got 2 calls of 'a'"):
        attention_overview({"a": [weights, weights]})
    with pytest.raises(ValueError, match=r"maps\['a'\]: the columns sum to 1"):
        attention_overview({"a": transposed(weights)})


def test_one_query_over_an_image():
    """Patches are numbered row by row, behind a class token: row r, column c is key 1 + r * w + c."""
    h, w, extra = 3, 5, 1
    torch.manual_seed(0)
    maps = torch.randn(H, extra + h * w, extra + h * w).mul(2).softmax(-1)
    query = extra + 1 * w + 3  # row 1, column 3
    figure = attention_map(maps[:, query], grid=(h, w), extra=extra)
    for axis, head in zip(panels(figure), maps, strict=True):
        drawn = axis.images[0].get_array()
        assert drawn.shape == (h, w)
        assert all(
            drawn[r, c] == pytest.approx(head[query, extra + r * w + c].item()) for r in range(h) for c in range(w)
        )
        assert axis.get_xlabel() == f"column ({head[query, 0]:.2f} outside)"
    assert panels(figure)[0].get_ylabel() == "row"
    transposed = maps[0, query, extra:].view(w, h).T
    assert not np.allclose(panels(figure)[0].images[0].get_array(), transposed), "the wrong twin has the same shape"
    (single,) = panels(attention_map(maps[2, query, 1:] / maps[2, query, 1:].sum(), grid=(h, w)))
    assert single.get_xlabel() == "column"


def test_a_grid_that_does_not_fit_is_refused(weights):
    row = weights[:, 0]  # (H, 6)
    with pytest.raises(
        ValueError, match=r"grid: expected h \* w = 5, the keys less 1 extra, got 2 \* 3 \(height before"
    ):
        attention_map(row, grid=(2, 3), extra=1)
    with pytest.raises(ValueError, match=r"expected one query's weights, \(S,\) or \(H, S\), got \(3, 4, 6\)"):
        attention_map(weights, grid=(2, 3))
    with pytest.raises(ValueError, match=r"row \[0\] sums to"):
        attention_map(row / 2, grid=(2, 3))
    with pytest.raises(ValueError, match="keys: expected 3 labels, got 6"):
        attention_map(row, keys="abcdef", grid=(2, 3))


def test_positions_without_names_are_whole_numbers(weights):
    figure = attention_map(weights[:, :, :4] / weights[:, :, :4].sum(-1, keepdim=True))
    figure.draw_without_rendering()
    for axis in panels(figure):
        for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            assert text.get_text().removeprefix("\N{MINUS SIGN}").isdigit(), text


def test_an_overview_measures_no_label(monkeypatch):
    """Layout by measure draws everything again and again: 144 panels took more than a minute."""
    from matplotlib.text import Text

    measured, whole = [], Text.get_window_extent
    monkeypatch.setattr(Text, "get_window_extent", lambda self, *a, **k: measured.append(self) or whole(self, *a, **k))
    maps = {f"layers.{i}": torch.eye(5).expand(6, 5, 5) for i in range(3)}
    figure = attention_overview(maps)
    figure.draw_without_rendering()
    assert len(panels(figure)) == 18
    few = len(measured)
    measured.clear()
    monkeypatch.setattr(recipe, "MOST_MEASURED", 18)
    attention_overview(maps).draw_without_rendering()
    assert len(measured) > 3 * few
