"""See every head: one HTML file that holds recorded maps, opens from disk and asks no network.

    with attention_weights(model) as maps:
        model(x)
    head_view(maps, tokens).save("heads.html")  # or the last line of a cell in a notebook

All layers and heads at a glance; one head as a map, as lines between tokens, or over the picture that was cut into patches.
For mouse, finger and keyboard, dark and light, in English or Japanese as the browser asks. Several inputs are a sum:

    head_view(maps_a, tokens_a, name="a") + head_view(maps_b, tokens_b, name="b")

Weights up to 1 are kept to 1/65535; of more than 300,000 to 0.004, as whole 255ths of the square root.
Needs torch alone. Letters: B batch, H heads, L queries, S keys, h and w the rows and columns of patches.
"""

import base64
import html
import json
import struct
import zlib
from pathlib import Path

import torch

FINE = 300_000  # weights; more of them get one byte each
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


# --8<-- [start:head_view]
def head_view(
    maps, tokens=None, keys=None, *, picture=None, grid=None, extra=0,
    sample=0, name="", note="", group="", title="Attention heads",
) -> "HeadView":  # fmt: skip
    """The heads of one input, to be looked at.

    maps: layer -> weights (B, H, L, S) or (H, L, S), or a list of them,
        one a call; of a batch, `sample` is shown.
    tokens: labels of each axis as long as they, others are counted;
    keys: labels of the keys, where they are not the queries.
    picture: a file, its bytes, or a tensor (3, height, width), with
    grid: (h, w), its patches, row by row, after `extra` other tokens.
    name, note, group: of this input among several.
    Raises ValueError for what is no map and labels that fit nowhere.
    """
    layers = [
        {"name": label, "weights": checked(weights, sample, label)}
        for label, weights in calls_of(maps)
    ]
    for layer, labels in zip(
        layers, fitted(layers, tokens, keys), strict=True
    ):
        layer["queries"], layer["keys"] = labels
    about = {"name": name, "note": note, "group": group}
    about["layers"] = layers
    if picture is not None or grid is not None:
        about["picture"] = patches(picture, grid, extra, layers)
    return HeadView([about], title)
# --8<-- [end:head_view]


def calls_of(maps):
    """(label, weights) of each call: a layer that was called several times has its calls counted."""
    for name, weights in maps.items():
        several = weights if isinstance(weights, list) else [weights]
        for number, one in enumerate(several):
            yield (f"{name} [{number}]" if len(several) > 1 else str(name)), one


def checked(weights, sample: int, name: str):
    """The (H, L, S) weights to show. Raises ValueError for another shape, and for what no softmax gives."""
    weights = torch.as_tensor(weights).detach().cpu()
    if weights.dim() == 4:
        if not -len(weights) <= sample < len(weights):
            raise ValueError(f"sample: {name} has {len(weights)} of them, got {sample}")
        weights = weights[sample]
    if weights.dim() != 3 or 0 in weights.shape:
        raise ValueError(f"maps[{name!r}]: expected (B, H, L, S) or (H, L, S), got {tuple(weights.shape)}")
    weights = weights.float()
    if not weights.isfinite().all():
        raise ValueError(f"maps[{name!r}]: expected weights, got {(~weights.isfinite()).sum()} NaN or infinities")
    if weights.min() < 0:
        raise ValueError(f"maps[{name!r}]: expected weights, which are not negative, got {weights.min():.3g}")
    return weights


def fitted(layers, tokens, keys):
    """[(labels of queries, labels of keys)] of each layer; None counts. Raises ValueError for labels that nothing has."""
    if not layers:
        raise ValueError("maps: expected at least one layer, got none")
    lists = {"tokens": tokens, "keys": keys}
    lists = {kind: [str(label) for label in labels] for kind, labels in lists.items() if labels is not None}
    shapes = [layer["weights"].shape[1:] for layer in layers]
    lengths = {"tokens": {n for shape in shapes for n in shape}, "keys": {S for _, S in shapes}}
    for kind, labels in lists.items():
        if len(labels) not in lengths[kind]:
            raise ValueError(f"{kind}: expected {sorted(lengths[kind])} of them, got {len(labels)}")
    tokens, keys = lists.get("tokens"), lists.get("keys")

    def of(length, *several):
        return next((labels for labels in several if labels and len(labels) == length), None)

    return [(of(L, tokens), of(S, keys, tokens)) for L, S in shapes]


def patches(picture, grid, extra: int, layers) -> dict:
    """What the page knows of the picture. Raises ValueError where no map has as many keys as there are tokens."""
    if picture is None or grid is None:
        raise ValueError("picture, grid: expected both of them or none")
    h, w = grid
    found = sorted({layer["weights"].shape[2] for layer in layers})
    if h * w + extra not in found:
        total = f"{h} x {w} patches and {extra} more are {h * w + extra} keys"
        raise ValueError(f"grid: {total}, the maps have {found}")
    return {"url": picture_url(picture), "h": h, "w": w, "extra": extra}


def picture_url(picture) -> str:
    """A picture as an address that carries it: a file, its bytes, or pixels.

    pixels: (3, height, width), (height, width, 3) or (height, width);
    floats in [0, 1], or whole numbers up to 255. Raises ValueError.
    """
    if isinstance(picture, str | Path):
        picture = Path(picture).read_bytes()
    if not isinstance(picture, bytes):
        picture = png(torch.as_tensor(picture).detach().cpu())
    kind = next((k for mark, k in KINDS.items() if picture.startswith(mark)), None)
    if kind is None:
        raise ValueError(f"picture: expected PNG, JPEG, GIF or WebP, got {picture[:4]}")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def png(pixels) -> bytes:
    """A PNG file of pixels, uncompressed but for zlib (RFC 1950; PNG 1.2, chapters 3 and 4)."""
    shape = tuple(pixels.shape)
    if pixels.dim() == 2:
        pixels = pixels[None].expand(3, -1, -1)
    if pixels.dim() == 3 and pixels.shape[0] == 3:
        pixels = pixels.permute(1, 2, 0)
    if pixels.dim() != 3 or pixels.shape[2] != 3:
        raise ValueError(f"picture: expected (3, height, width), (height, width, 3) or (height, width), got {shape}")
    low, high = pixels.min().item(), pixels.max().item()
    top = 1 if pixels.is_floating_point() else 255
    if not (low >= 0 and high <= top):
        raise ValueError(f"picture: expected pixels from 0 to {top}, got {low:.3g} to {high:.3g}: undo the normalisation")
    pixels = (pixels * 255).round() if top == 1 else pixels
    height, width, _ = pixels.shape
    rows = torch.cat([torch.zeros(height, 1), pixels.reshape(height, -1)], 1)  # each row begins with its filter, 0

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(rows.to(torch.uint8).flatten().tolist()), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class HeadView:
    """The heads of one input or of several; a notebook shows it."""

    def __init__(self, examples: list, title: str):
        self.examples, self.title = examples, title

    def __add__(self, other: "HeadView") -> "HeadView":
        return HeadView(self.examples + other.examples, self.title)

    def data(self) -> dict:
        """What the page reads, as JSON can be written of it.

        weights: all of them, layer after layer, zlib, base64;
        levels: 65535 for w = top * n / 65535 (two bytes, low first), or
        255 for w = top * (n / 255)².
        """
        layers = [x for example in self.examples for x in example["layers"]]
        flat = torch.cat([x["weights"].flatten() for x in layers])
        top = max(1.0, flat.max().item())  # dropout scales weights up
        if flat.numel() <= FINE:
            levels, numbers = 65535, (flat / top * 65535).round().int()
            numbers = torch.stack([numbers % 256, numbers // 256], -1)
        else:
            levels, numbers = 255, (flat / top).sqrt().mul(255).round()
        packed = zlib.compress(numbers.to(torch.uint8).numpy().tobytes(), 9)
        return {
            "title": self.title,
            "levels": levels,
            "top": top,
            "weights": base64.b64encode(packed).decode(),
            "examples": [
                example | {"layers": [shown(x) for x in example["layers"]]}
                for example in self.examples
            ],
        }

    def html(self, language: str | None = None) -> str:
        """The whole page; language: "en" or "ja", else the browser's."""
        data = json.dumps(self.data(), ensure_ascii=False)
        data = data.replace("<", r"\u003c")  # or </script> would end it
        chosen = f' lang="{language}"' if language else ""
        return PAGE.format(
            title=html.escape(self.title), data=data, script=SCRIPT,
            language=html.escape(language or "en"), chosen=chosen,
        )  # fmt: skip

    def save(self, path, language: str | None = None) -> None:
        Path(path).write_text(self.html(language), encoding="utf-8")

    def _repr_html_(self) -> str:
        page = html.escape(self.html())
        style = "width: 100%; height: 46rem; border: 0"
        return f'<iframe srcdoc="{page}" style="{style}"></iframe>'


def shown(layer) -> dict:
    heads, rows, columns = layer["weights"].shape
    return {**layer, "weights": None, "heads": heads, "rows": rows, "columns": columns}


PAGE = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 75rem; margin: 0 auto; padding: 0.5rem 1rem 2rem; }}
h1 {{ font-size: 1.3rem; font-weight: 600; }}
</style>
<h1>{title}</h1>
<head-view{chosen}><script type="application/json">{data}</script></head-view>
<script type="module">{script}</script>
</html>
"""

SCRIPT = r"""
// <head-view>: every head of every layer, and one of them large. Its data stand inside it as JSON; on a site, where
// data-name says which, they are fetched from ../data/NAME.json when the element comes near.

const TEXTS = {
  en: {
    input: "input", view: "shown as", map: "map", lines: "lines", picture: "picture", query: "query", key: "key",
    head: (layer, head) => `${layer}, head ${head}`,
    all: "All heads: layers downwards, heads across. Arrow keys move between them.",
    large: { map: "arrow keys move the cell", lines: "arrow keys move the query", picture: "arrow keys move the query" },
    says: (query, list) => `“${query}” attends to ${list.map(([key, weight]) => `“${key}” ${weight}`).join(", ")}`,
    cell: (query, key, weight) => `from “${query}” to “${key}”: ${weight}`,
    help: {
      map: "The stronger the colour, the greater the weight: its square root is drawn.",
      lines: "The stronger the line, the greater the weight: its square root is drawn. Of other queries the three greatest, in grey.",
      picture: "The brighter, the greater the weight, beside the greatest of this query. Point at a patch to ask for it.",
    },
    wait: "The data is being loaded.", failed: "The data could not be loaded.",
  },
  ja: {
    input: "例", view: "表示", map: "行列", lines: "線", picture: "画像", query: "クエリ", key: "キー",
    head: (layer, head) => `${layer}のヘッド${head}`,
    all: "すべてのヘッド。上から下へ層、左から右へヘッド。矢印キーで移ります。",
    large: { map: "矢印キーでマスを選びます", lines: "矢印キーでクエリを選びます", picture: "矢印キーでクエリを選びます" },
    says: (query, list) => `「${query}」が見ている先：${list.map(([key, weight]) => `「${key}」${weight}`).join("、")}`,
    cell: (query, key, weight) => `「${query}」から「${key}」へ：${weight}`,
    help: {
      map: "色が強いほど注意の重みが大きいことを表します（平方根で塗っています）。",
      lines: "線が濃いほど注意の重みが大きいことを表します（平方根で描いています）。灰色は、ほかのクエリの上位3本です。",
      picture: "明るいほど、このクエリの最大値に近い注意の重みです。パッチを指すと、そのパッチがクエリになります。",
    },
    wait: "データを読み込んでいます。", failed: "データを読み込めませんでした。",
  },
};

const STYLE = `
head-view {
  display: block; --ink: CanvasText; --paper: Canvas; --soft: color-mix(in srgb, CanvasText 12%, Canvas);
  --mark: light-dark(#b3261e, #ffb4ab); --blue: light-dark(#1d5fbf, #8ab4f8); color: var(--ink);
}
head-view .hv-fields {
  display: flex; flex-wrap: wrap; gap: 0.5em 1.2em; align-items: end; font-size: 0.85em;
}
head-view .hv-fields label { display: grid; grid-template-columns: minmax(0, auto); gap: 0.2em; max-width: 100%; }
head-view select {
  max-width: 100%; padding: 0.35em 0.5em; color: var(--ink); font: inherit; background: var(--paper);
  border: 1px solid var(--ink); border-radius: 3px;
}
head-view .hv-note { min-height: 1.5em; margin: 0.6em 0; }
head-view .hv-body { display: flex; flex-wrap: wrap; gap: 1em 2em; align-items: flex-start; }
head-view .hv-all {
  flex: 0 1 auto; display: grid; gap: 3px; justify-content: start; max-width: 100%; max-height: 540px;
  padding: 3px; overflow: auto; font-size: 0.7em;
}
head-view .hv-name {
  align-self: center; max-width: 9em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  direction: rtl; text-align: start;
}
head-view .hv-all button {
  display: block; width: 100%; padding: 0; background: var(--soft); border: 0; cursor: pointer;
}
head-view .hv-all button[aria-pressed="true"] { outline: 3px solid var(--mark); }
head-view .hv-all canvas { display: block; width: 100%; aspect-ratio: 1; }
head-view :focus-visible { outline: 3px solid var(--blue); outline-offset: 1px; }
head-view .hv-one { flex: 1 1 270px; min-width: 0; }
head-view .hv-large {
  position: relative; max-width: 100%; max-height: 540px; overflow: auto; touch-action: pan-x pan-y;
}
head-view .hv-large > canvas, head-view .hv-large > svg, head-view .hv-patches {
  display: block; cursor: crosshair;
}
head-view .hv-patches { position: relative; width: min(100%, 420px); }
head-view .hv-patches > img { display: block; width: 100%; image-rendering: auto; }
head-view .hv-patches > canvas {
  position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated;
}
head-view .hv-patches > .hv-mark { position: absolute; outline: 3px solid var(--mark); pointer-events: none; }
head-view .hv-extra { display: flex; flex-wrap: wrap; gap: 0.3em; margin-bottom: 0.4em; }
head-view .hv-extra button {
  padding: 0.1em 0.5em; color: inherit; font: inherit; background: var(--soft);
  border: 1px solid var(--ink); border-radius: 3px;
}
head-view .hv-extra button[aria-pressed="true"] { outline: 3px solid var(--mark); }
head-view .hv-says { min-height: 3em; margin: 0.6em 0; overflow-wrap: anywhere; }
head-view .hv-help { margin: 0.3em 0; font-size: 0.8em; }
head-view svg { font-size: 12px; }
head-view text { fill: var(--ink); }
head-view .hv-axis { opacity: 0.8; }
`;

const grow = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const html = (tag, attributes = {}, ...children) => grow(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => grow(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** All weights as numbers, from what head_view.py packed. */
export async function unpacked({ weights, levels, top }) {
  const packed = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (levels === 255) return Float32Array.from(bytes, (n) => top * (n / 255) ** 2);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => (top * (bytes[2 * i] + 256 * bytes[2 * i + 1])) / levels);
}

/** Positions of the greatest weights, best first; equals stand in their order. */
export const strongest = (row, count) => Array.from(row.keys()).sort((i, j) => row[j] - row[i] || i - j).slice(0, count);

/** Give every layer of every example its labels and its part of the weights. */
export function laid(examples, weights) {
  let at = 0;
  const counted = (length) => Array.from({ length }, (_, i) => String(i));
  return examples.map((example) => ({
    ...example,
    layers: example.layers.map((layer) => {
      const start = at;
      at += layer.heads * layer.rows * layer.columns;
      const [queries, keys] = [layer.queries ?? counted(layer.rows), layer.keys ?? counted(layer.columns)];
      return { ...layer, queries, keys, weights: weights.subarray(start, at) };
    }),
  }));
}

/** The weights (rows, columns) of one head, and one row of them. */
export const headOf = (layer, head) => layer.weights.subarray(head * layer.rows * layer.columns, (head + 1) * layer.rows * layer.columns);
export const rowOf = (layer, head, query) => headOf(layer, head).subarray(query * layer.columns, (query + 1) * layer.columns);

/** A state that the data has, nearest to the one that is asked for. */
export function possible(state, examples) {
  const example = clamp(state.example, 0, examples.length - 1);
  const { layers, picture } = examples[example];
  const layer = clamp(state.layer, 0, layers.length - 1);
  const { heads, rows, columns } = layers[layer];
  const patches = picture && columns === picture.h * picture.w + picture.extra;
  const view = patches || state.view !== "picture" ? state.view : "map";
  const [query, key] = [clamp(state.query, 0, rows - 1), clamp(state.key, 0, columns - 1)];
  return { example, layer, head: clamp(state.head, 0, heads - 1), query, key, view };
}

/** The state that an address asks for, the rest as usual. */
export function stateFrom(address, usual) {
  const asked = new URLSearchParams(address);
  const number = (name) => (/^\d{1,6}$/.test(asked.get(name) ?? "") ? Number(asked.get(name)) : usual[name]);
  const view = ["map", "lines", "picture"].includes(asked.get("view")) ? asked.get("view") : usual.view;
  return { example: number("example"), layer: number("layer"), head: number("head"), query: number("query"), key: number("key"), view };
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const move = (event) => (event.ctrlKey || event.altKey || event.metaKey ? undefined : MOVES[event.key]);

class HeadView extends HTMLElement {
  connectedCallback() {
    if (this.stage) return;
    const language = this.lang || (this.dataset.name ? document.documentElement.lang : navigator.language);
    this.texts = TEXTS[language.slice(0, 2)] ?? TEXTS.en;
    this.stage = this.querySelector(".explorer-stage") ?? this.appendChild(html("div"));
    this.stage.replaceChildren(html("p", {}, this.texts.wait));
    this.near = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.load(), { rootMargin: "200px" });
    this.near.observe(this.stage);
  }

  disconnectedCallback() {
    this.near?.disconnect();
    this.schemes?.disconnect();
  }

  async load() {
    this.near.disconnect();
    try {
      this.data = this.dataset.name ? await this.fetched() : JSON.parse(this.querySelector("script").textContent);
      this.examples = laid(this.data.examples, await unpacked(this.data));
    } catch {
      this.stage.replaceChildren(html("p", { role: "alert" }, this.texts.failed));
      return;
    }
    if (!document.adoptedStyleSheets.some((sheet) => sheet.ofHeadView)) {
      const sheet = new CSSStyleSheet();
      sheet.ofHeadView = true;
      sheet.replaceSync(STYLE);
      document.adoptedStyleSheets = [sheet, ...document.adoptedStyleSheets];
    }
    this.digits = this.data.levels === 255 ? 2 : 3;
    const view = this.examples[0].picture ? "picture" : "lines";
    this.usual = possible({ example: 0, layer: 0, head: 0, query: 0, key: 0, view, ...this.data.start }, this.examples);
    this.state = possible(stateFrom(location.search, this.usual), this.examples);
    this.draw();
    this.show();
    const again = () => this.show();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    this.schemes = new MutationObserver(again); // a site's own switch
    this.schemes.observe(document.body, { attributes: true });
  }

  async fetched() {
    const answer = await fetch(new URL(`../data/${this.dataset.name}.json`, import.meta.url));
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  }

  get example() { return this.examples[this.state.example]; }
  get layer() { return this.example.layers[this.state.layer]; }

  set(change, spoken = true) {
    const before = this.state;
    this.state = possible({ ...before, ...change }, this.examples);
    this.show(before);
    if (spoken) this.keep();
  }

  keep() {
    clearTimeout(this.later);
    const write = () => {
      const query = new URLSearchParams(location.search);
      for (const [name, value] of Object.entries(this.state)) {
        if (value === this.usual[name] || (name === "key" && this.state.view !== "map")) query.delete(name);
        else query.set(name, value);
      }
      const text = query.toString();
      try {
        history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : "") + location.hash);
      } catch { // too often, or a frame without an address of its own
        if (location.protocol.startsWith("http")) this.later = setTimeout(write, 2000);
      }
    };
    this.later = setTimeout(write, 300);
  }

  shown(weight) { return weight.toFixed(this.digits); }

  // What stands still

  draw() {
    const { texts } = this;
    const field = (name, options) => {
      const select = html("select", { name }, ...options);
      select.addEventListener("change", () => this.set({ [name]: name === "view" ? select.value : Number(select.value) }));
      return select;
    };
    const groups = {};
    this.examples.forEach(({ name, group }, i) => (groups[group] ??= []).push(html("option", { value: i }, name || String(i))));
    const options = Object.entries(groups).flatMap(([label, list]) => (label ? [html("optgroup", { label }, ...list)] : list));
    this.fields = { example: field("example", options), view: field("view", []) };
    const label = (text, select) => html("label", {}, text, select);
    this.note = html("p", { class: "hv-note" });
    this.all = html("div", { class: "hv-all", role: "group", "aria-label": texts.all });
    this.all.addEventListener("keydown", (event) => {
      const way = move(event);
      if (!way) return;
      event.preventDefault();
      this.set({ layer: this.state.layer + way[0], head: this.state.head + way[1] });
      this.thumbs[this.state.layer][this.state.head].focus();
    });
    this.name = html("p", { class: "hv-help" });
    this.large = html("div", { class: "hv-large", tabindex: 0, role: "group" });
    this.large.addEventListener("keydown", (event) => {
      const way = move(event);
      if (!way || event.target !== this.large) return;
      event.preventDefault();
      const { view, query, key } = this.state;
      const step = { map: way[0], lines: way[0], picture: way[0] * this.example.picture?.w + way[1] }[view];
      this.set({ query: query + step, key: view === "map" ? key + way[1] : key });
      this.large.querySelector(".hv-mark")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    this.line = html("p", { class: "hv-says", "aria-live": "polite" });
    this.help = html("p", { class: "hv-help" });
    const inputs = this.examples.length > 1 ? [label(texts.input, this.fields.example)] : [];
    this.stage.replaceChildren(
      html("div", { class: "hv-fields" }, ...inputs, label(texts.view, this.fields.view)), this.note,
      html("div", { class: "hv-body" }, this.all, html("div", { class: "hv-one" }, this.name, this.large, this.line, this.help)));
  }

  // What moves

  show(before) {
    const { state, texts, example, layer, fields } = this;
    const other = (...names) => !before || names.some((name) => before[name] !== state[name]);
    this.blue = /[\d.]+/g[Symbol.match](this.colour("--blue")).slice(0, 3).map(Number);
    if (other("example")) {
      fields.example.value = state.example;
      this.note.textContent = example.note ?? "";
      this.overview();
    }
    if (other("example", "layer")) {
      const views = ["lines", "map", "picture"].filter((view) => possible({ ...state, view }, this.examples).view === view);
      fields.view.replaceChildren(...views.map((view) => html("option", { value: view }, texts[view])));
    }
    fields.view.value = state.view;
    this.thumbs.forEach((row, i) => row.forEach((thumb, j) => {
      const chosen = i === state.layer && j === state.head;
      grow(thumb, { "aria-pressed": chosen, tabindex: chosen ? 0 : -1 }, []);
    }));
    this.name.textContent = texts.head(layer.name, state.head);
    this.help.textContent = texts.help[state.view];
    this.large.setAttribute("aria-label", `${texts.head(layer.name, state.head)}: ${texts.large[state.view]}`);
    if (other("example", "layer", "head", "view")) this.still = this[`${state.view}Still`](layer);
    this.still(state);
    this.say();
  }

  colour(name) {
    const probe = this.appendChild(html("i", { hidden: "" }));
    probe.style.setProperty("color", `var(${name})`);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  }

  say() {
    const { state, texts, layer } = this;
    const row = rowOf(layer, state.head, state.query);
    const query = layer.queries[state.query];
    const text = state.view === "map"
      ? texts.cell(query, layer.keys[state.key], this.shown(row[state.key]))
      : texts.says(query, strongest(row, 3).map((j) => [layer.keys[j], this.shown(row[j])]));
    clearTimeout(this.speech);
    if (this.line.textContent) this.speech = setTimeout(() => { this.line.textContent = text; }, 200); // when the hand rests
    else this.line.textContent = text;
  }

  /** Paint weights, rows after rows, one pixel each. */
  painted(weights, columns, canvas = html("canvas")) {
    const rows = weights.length / columns;
    grow(canvas, { width: columns, height: rows }, []);
    const image = new ImageData(columns, rows);
    const [red, green, blue] = this.blue;
    for (let i = 0; i < weights.length; i += 1) image.data.set([red, green, blue, 255 * Math.sqrt(Math.min(1, weights[i]))], 4 * i);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  overview() {
    const { layers } = this.example;
    const heads = Math.max(...layers.map((layer) => layer.heads));
    const side = clamp(Math.floor(Math.min(420, this.clientWidth - 110) / heads), 18, 64);
    this.all.style.setProperty("grid-template-columns", `fit-content(9em) repeat(${heads}, ${side}px)`);
    this.thumbs = layers.map((layer, i) => Array.from({ length: layer.heads }, (_, head) => {
      const picture = this.painted(headOf(layer, head), layer.columns);
      const thumb = html("button", { type: "button", "aria-label": this.texts.head(layer.name, head) }, picture);
      thumb.style.setProperty("grid-column", head + 2);
      thumb.addEventListener("click", () => this.set({ layer: i, head }));
      return thumb;
    }));
    const name = ({ name }) => html("span", { class: "hv-name", title: name }, html("bdi", {}, name));
    this.all.replaceChildren(...this.thumbs.flatMap((row, i) => [name(layers[i]), ...row]));
  }

  /** Let the pointer choose: place(x, y) in px of `node` as drawn at `width`. */
  pointed(node, width, place) {
    const act = (event) => {
      const box = node.getBoundingClientRect();
      place(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.width) * width);
    };
    node.addEventListener("pointermove", (event) => event.pointerType === "mouse" && act(event));
    node.addEventListener("pointerdown", act);
  }

  /** The space that labels take, px. */
  room(labels) {
    const pen = html("canvas").getContext("2d");
    pen.font = "12px system-ui";
    return clamp(Math.max(...labels.map((label) => pen.measureText(label).width)) + 8, 20, 120);
  }

  mapStill(layer) {
    const { rows, columns, queries, keys } = layer;
    const [left, top] = [this.room(queries), this.room(keys)];
    const cell = clamp(Math.floor((this.large.clientWidth - left - 4) / columns), 4, 26);
    const step = Math.ceil(13 / cell); // labels that do not touch
    const size = [left + columns * cell + 4, top + rows * cell + 4];
    const at = (i) => top + i * cell + cell / 2 + 4;
    const x = (j) => left + j * cell + cell / 2 + 4;
    const rowLabel = (label, i) => (i % step ? [] : [svg("text", { x: left - 4, y: at(i), "text-anchor": "end" }, label)]);
    const columnLabel = (label, j) => (j % step ? [] : [svg("text", { transform: `translate(${x(j)} ${top - 4}) rotate(-90)` }, label)]);
    const picture = svg("svg", { width: size[0], height: size[1], viewBox: `0 0 ${size.join(" ")}`, "aria-hidden": "true" },
      ...queries.flatMap(rowLabel), ...keys.flatMap(columnLabel));
    const canvas = this.painted(headOf(layer, this.state.head), columns);
    const holder = svg("foreignObject", { x: left, y: top, width: columns * cell, height: rows * cell }, canvas);
    const box = `width: ${columns * cell}px; height: ${rows * cell}px`;
    canvas.style.cssText = `display: block; ${box}; image-rendering: pixelated; background: var(--soft)`;
    const line = (attributes) => svg("rect", { fill: "none", "stroke-width": 2, ...attributes });
    const [row, column] = [line({ x: left, width: columns * cell, height: cell }), line({ y: top, width: cell, height: rows * cell })];
    const mark = line({ class: "hv-mark", width: cell, height: cell });
    for (const one of [row, column]) one.style.cssText = "stroke: var(--ink); stroke-opacity: 0.35; stroke-width: 1";
    mark.style.setProperty("stroke", "var(--mark)");
    picture.append(holder, row, column, mark);
    const cellAt = (px, py) => ({ query: Math.floor((py - top) / cell), key: Math.floor((px - left) / cell) });
    this.pointed(picture, size[0], (px, py) => this.set(cellAt(px, py)));
    this.large.replaceChildren(picture);
    return ({ query, key }) => {
      row.setAttribute("y", top + query * cell);
      column.setAttribute("x", left + key * cell);
      grow(mark, { x: left + key * cell, y: top + query * cell }, []);
    };
  }

  linesStill(layer) {
    const { queries, keys, columns } = layer;
    const { head } = this.state;
    const [left, right] = [this.room([...queries, this.texts.query]), this.room([...keys, this.texts.key])];
    const middle = clamp(this.large.clientWidth - left - right - 60, 90, 260);
    const longest = Math.max(queries.length, keys.length);
    const [height, letters] = longest > 40 ? [13, 10] : [20, 12]; // px of a token
    const size = [left + middle + right + 50, (longest + 1) * height + 4];
    const y = (i) => (i + 1.5) * height;
    const ends = [left + 2, left + middle - 2];
    const line = (i, j, weight, kind) =>
      svg("path", { d: `M${ends[0]} ${y(i)}L${ends[1]} ${y(j)}`, "stroke-opacity": Math.sqrt(weight), ...kind });
    const others = queries.flatMap((_, i) => strongest(rowOf(layer, head, i), 3).flatMap((j) => {
      const weight = rowOf(layer, head, i)[j];
      return weight < 0.05 ? [] : [line(i, j, weight / 4, { stroke: "currentColor" })];
    }));
    const chosen = svg("g", { "stroke-width": 3 });
    chosen.style.setProperty("stroke", "var(--blue)");
    const mark = svg("rect", { class: "hv-mark", x: 1, width: left, height, "fill-opacity": 0.2, rx: 3 });
    mark.style.setProperty("fill", "var(--mark)");
    const numbers = keys.map((_, j) => svg("text", { class: "hv-weight", x: size[0] - 2, y: y(j) + 4, "text-anchor": "end" }));
    const query = (label, i, of = "hv-query") => svg("text", { class: of, x: left - 2, y: y(i) + 4, "text-anchor": "end" }, label);
    const key = (label, j, of = "hv-key") => svg("text", { class: of, x: left + middle + 4, y: y(j) + 4 }, label);
    const picture = svg("svg", { width: size[0], height: size[1], viewBox: `0 0 ${size.join(" ")}`, "aria-hidden": "true" },
      query(this.texts.query, -1, "hv-axis"), key(this.texts.key, -1, "hv-axis"),
      mark, ...others, chosen, ...queries.map((label, i) => query(label, i)), ...keys.map((label, j) => key(label, j)), ...numbers);
    picture.style.setProperty("font-size", `${letters}px`);
    this.pointed(picture, size[0], (x, at) => this.set({ query: Math.floor(at / height) - 1 }));
    this.large.replaceChildren(picture);
    return ({ query }) => {
      const row = rowOf(layer, head, query);
      mark.setAttribute("y", y(query) - height / 2);
      chosen.replaceChildren(...Array.from({ length: columns }, (_, j) => line(query, j, row[j], {})));
      const best = strongest(row, 1)[0];
      numbers.forEach((text, j) => {
        text.textContent = this.shown(row[j]);
        text.setAttribute("font-weight", j === best ? 700 : 400);
      });
    };
  }

  pictureStill(layer) {
    const { url, h, w, extra } = this.example.picture;
    const square = layer.rows === layer.columns; // queries are the same patches
    const canvas = html("canvas");
    const patches = html("div", { class: "hv-patches" }, html("img", { src: url, alt: "" }), canvas);
    const mark = patches.appendChild(html("div", { class: "hv-mark" }));
    mark.style.cssText = `width: ${100 / w}%; height: ${100 / h}%`;
    const names = square ? layer.queries.slice(0, extra) : layer.queries;
    const others = names.map((name, i) => {
      const button = html("button", { type: "button", tabindex: -1 }, name);
      button.addEventListener("click", () => this.set({ query: i }));
      return button;
    });
    const at = (x, y) => { // x and y in widths of a patch
      const row = Math.floor((y * h * patches.clientWidth) / (w * patches.clientHeight));
      this.set({ query: extra + clamp(row, 0, h - 1) * w + clamp(Math.floor(x), 0, w - 1) });
    };
    if (square) this.pointed(patches, w, at);
    this.large.replaceChildren(html("div", { class: "hv-extra" }, ...others), patches);
    return ({ query, head }) => {
      const row = rowOf(layer, head, query).subarray(extra);
      const greatest = Math.max(...row) || 1;
      const image = new ImageData(w, h);
      row.forEach((weight, j) => image.data.set([0, 0, 0, 220 * (1 - weight / greatest)], 4 * j)); // what is not looked at is dark
      grow(canvas, { width: w, height: h }, []).getContext("2d").putImageData(image, 0, 0);
      others.forEach((button, i) => button.setAttribute("aria-pressed", i === query));
      mark.hidden = !square || query < extra;
      mark.style.setProperty("left", `${(((query - extra) % w) * 100) / w}%`);
      mark.style.setProperty("top", `${(Math.floor((query - extra) / w) * 100) / h}%`);
    };
  }
}

customElements.define("head-view", HeadView);
"""
