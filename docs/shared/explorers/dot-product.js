// <dot-product>: a query and its keys in the plane, to be dragged; norms, angles, dot products, weights and output follow.
// The numbers it starts from stand in data-query (x y), data-keys (x y x y …) and data-values.
import { asked, begin, buttons, clamp, dot, filled, html, indexOfMax, keep, movable, numbers, put, shown, softmax, speaker, svg, wordsOf } from "./panel.js";

const norm = (a) => Math.hypot(...a);

/**
 * One query in the plane against its keys: {dots, norms, cosines, angles, weights, output}.
 * Angles are in radians from 0 to pi; they and cosines are NaN where a vector has no length.
 */
export function attend(query, keys, values) {
  const dots = keys.map((key) => dot(query, key));
  const norms = keys.map(norm);
  const length = norm(query);
  const cosines = dots.map((product, j) => product / (length * norms[j]));
  // atan2 of cross and dot product: arccos loses half its digits near 0 and pi
  const angles = keys.map((key, j) => (length * norms[j] ? Math.atan2(Math.abs(query[0] * key[1] - query[1] * key[0]), dots[j]) : NaN));
  const weights = softmax(dots.map((product) => product / Math.sqrt(query.length)));
  return { dots, norms, cosines, angles, weights, output: dot(weights, values) };
}

const SIZE = 320;
const REACH = 2.6; // the plane goes from -REACH to REACH
const EDGE = 2.5;
const x = (position) => ((position + REACH) / (2 * REACH)) * SIZE;
const y = (position) => SIZE - x(position);
const round = (value) => Math.round(clamp(value, -EDGE, EDGE) * 100) / 100;
const pairs = (list) => Array.from({ length: list.length / 2 }, (_, j) => list.slice(2 * j, 2 * j + 2));
const times = (point, factor) => point.map((value) => round(value * factor));

if (globalThis.HTMLElement) {
  class DotProduct extends HTMLElement {
    connectedCallback() {
      if (this.picture) return;
      this.strings = wordsOf(this);
      this.values = numbers(this.dataset.values);
      this.usual = { query: numbers(this.dataset.query), keys: numbers(this.dataset.keys) };
      this.query = asked("query", this.usual.query, -EDGE, EDGE);
      this.keys = pairs(asked("keys", this.usual.keys, -EDGE, EDGE));
      this.draw();
      this.show("");
    }

    draw() {
      const { strings } = this;
      const lines = [-2, -1, 0, 1, 2].map((t) => `M${x(t)} 0 V${SIZE} M0 ${y(t)} H${SIZE}`).join("");
      this.border = svg("path", { class: "e-border" });
      this.handles = [...this.keys.map((_, j) => this.handle("k", filled(strings.key, { j }), String(j))), this.handle("q", strings.query, "q")];
      this.picture = svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, class: "e-picture", role: "group", "aria-label": strings.picture },
        svg("path", { class: "e-grid", d: lines }), svg("path", { class: "e-axis", d: `M${x(0)} 0 V${SIZE} M0 ${y(0)} H${SIZE}` }), this.border, ...this.handles.map(({ node }) => node));
      this.handles.forEach(({ node }, j) => movable(node, this.picture,
        (px, py) => this.move(j, [(px / SIZE) * 2 * REACH - REACH, REACH - (py / SIZE) * 2 * REACH]),
        (dx, dy) => this.move(j, [this.point(j)[0] + dx * 0.05, this.point(j)[1] + dy * 0.05])));
      this.caption = html("caption", { id: "dot-product-caption" });
      this.rows = this.keys.map((_, j) => ({
        cells: Array.from({ length: 5 }, () => html("td")),
        head: html("th", { scope: "row" }, String(j)),
        bar: html("span", { class: "e-weight", "aria-hidden": "true" }),
      }));
      const table = html("table", { class: "explorer-table" }, this.caption,
        html("thead", {}, html("tr", {}, ...strings.columns.map((text) => html("th", { scope: "col" }, text)))),
        html("tbody", {}, ...this.rows.map(({ head, cells }) => html("tr", {}, head, ...cells))));
      this.line = speaker();
      const stage = this.querySelector(".explorer-stage") ?? this.appendChild(html("div", { class: "explorer-stage" }));
      stage.replaceChildren(
        html("div", { class: "explorer-pair" }, this.picture, html("div", { class: "explorer-side", tabindex: 0, role: "group", "aria-labelledby": this.caption.id }, table)),
        buttons(strings.presets, strings.names, (i) => this.preset(i)), this.line, html("p", { class: "explorer-help" }, strings.help));
    }

    handle(role, label, letter) {
      const parts = {
        arrow: svg("path", { class: "e-arrow" }), reach: svg("circle", { class: "e-reach", r: 20 }),
        dot: svg("circle", { class: "e-dot", r: 10 }), letter: svg("text", { class: "e-letter", "text-anchor": "middle", dy: "0.35em" }, letter),
      };
      const node = svg("g", {
        class: `e-handle ${role}`, role: "slider", tabindex: 0, "aria-label": label, "aria-roledescription": this.strings.point,
        "aria-valuemin": -EDGE, "aria-valuemax": EDGE,
      }, ...Object.values(parts));
      return { node, ...parts };
    }

    point(j) {
      return j < this.keys.length ? this.keys[j] : this.query;
    }

    move(j, [px, py]) {
      const point = [round(px), round(py)];
      if (j < this.keys.length) this.keys[j] = point;
      else this.query = point;
      this.show("");
    }

    preset(i) {
      this.query = [...this.usual.query];
      this.keys = pairs(this.usual.keys);
      const before = attend(this.query, this.keys, this.values);
      if (i === 1) this.keys[0] = times(this.keys[0], 2);
      if (i === 2) this.keys[3] = times(this.keys[3], 2);
      if (i === 3) this.query = times(this.query, 2);
      const after = attend(this.query, this.keys, this.values);
      const changed = { 1: 0, 2: 3, 3: indexOfMax(before.weights) }[i];
      const said = i === 4 ? [indexOfMax(after.weights), indexOfMax(after.cosines)] : [before, after].map(({ weights }) => shown(weights[changed] ?? 0));
      // the last note says by itself what the line would repeat
      this.show(filled(this.strings.notes[i], said), i === 4);
    }

    show(note, alone = false) {
      const { query, keys, values, strings } = this;
      const result = attend(query, keys, values);
      this.handles.forEach(({ node, arrow, reach, dot: circle, letter }, j) => {
        const [px, py] = this.point(j);
        put(arrow, { d: `M${x(0)} ${y(0)} L${x(px)} ${y(py)}` });
        for (const part of [circle, reach]) put(part, { cx: x(px), cy: y(py) });
        put(letter, { x: x(px), y: y(py) });
        if (j < keys.length) put(circle, { r: 9 + 11 * Math.sqrt(result.weights[j]) });
        put(node, { "aria-valuenow": px, "aria-valuetext": `x ${shown(px, 2)}, y ${shown(py, 2)}` });
      });
      const length = norm(query);
      const [ux, uy] = length ? [-query[1] / length, query[0] / length].map((value) => value * 4) : [0, 0];
      put(this.border, { d: `M${x(-ux)} ${y(-uy)} L${x(ux)} ${y(uy)}` });
      this.caption.textContent = filled(strings.caption, { norm: shown(length), output: shown(result.output) });
      const best = indexOfMax(result.weights);
      this.rows.forEach(({ head, cells, bar }, j) => {
        const angle = result.angles[j] * (180 / Math.PI);
        const texts = [shown(result.norms[j], 2), Number.isNaN(angle) ? "–" : `${shown(angle, 0)}°`, shown(result.dots[j], 2), shown(result.weights[j]), shown(values[j], 1)];
        cells.forEach((cell, i) => { cell.textContent = texts[i]; });
        bar.style.inlineSize = `${100 * result.weights[j]}%`;
        cells[3].append(bar);
        head.parentNode.classList.toggle("best", j === best);
      });
      // without a length there is no angle, and nothing to say about cosines
      const cosine = result.cosines.some(Number.isNaN) ? "" : filled(strings.cosine, { top: indexOfMax(result.cosines) });
      const told = { output: shown(result.output, 4), top: best, weight: shown(result.weights[best]) };
      this.line.say(alone ? note : note + filled(strings.says, told) + cosine);
      keep({ query, keys: keys.flat() }, this.usual);
    }
  }

  begin("dot-product", DotProduct);
}
