// <soft-dictionary>: move the query along the axis and the temperature up and down; weights and answer follow.
// The numbers it starts from stand in data-keys, data-values, data-query and data-temperature.
import { asked, begin, buttons, clamp, filled, html, keep, movable, numbers, put, shown, softmax, speaker, svg, wordsOf } from "./panel.js";

/** What the soft dictionary answers: {scores, weights, output}. Scores are -(query - key)^2 / 2, divided by the temperature. */
export function lookup(query, temperature, keys, values) {
  const scores = keys.map((key) => -((query - key) ** 2) / 2);
  const weights = softmax(scores.map((score) => score / temperature));
  return { scores, weights, output: weights.reduce((sum, weight, j) => sum + weight * values[j], 0) };
}

const [WIDTH, TOP, BASE, FOOT] = [336, 16, 176, 250];
const [LOW, HIGH] = [-0.5, 5.5];
const [COLDEST, HOTTEST] = [1e-3, 1e2];
const STEPS = 20; // of the slider, per factor of 10
const round = (x) => Math.round(x * 100) / 100;

if (globalThis.HTMLElement) {
  class SoftDictionary extends HTMLElement {
    connectedCallback() {
      if (this.picture) return;
      this.strings = wordsOf(this);
      this.keys = numbers(this.dataset.keys);
      this.values = numbers(this.dataset.values);
      this.usual = { query: numbers(this.dataset.query), T: numbers(this.dataset.temperature) };
      [this.query] = asked("query", this.usual.query, LOW, HIGH);
      [this.T] = asked("T", this.usual.T, COLDEST, HOTTEST);
      this.draw();
      this.show();
    }

    x(position) {
      return 28 + ((position - LOW) / (HIGH - LOW)) * (WIDTH - 40);
    }

    y(value) {
      const [low, high] = [Math.min(...this.values), Math.max(...this.values)];
      return BASE - 12 - ((value - low) / (high - low)) * (BASE - TOP - 28);
    }

    draw() {
      const { strings, keys, values } = this;
      this.curve = svg("path", { class: "e-curve" });
      this.guide = svg("path", { class: "e-guide" });
      this.output = svg("circle", { class: "e-output", r: 6 });
      this.label = svg("text", { class: "e-strong" });
      this.handle = svg("g", { class: "e-handle q", role: "slider", tabindex: 0, "aria-label": strings.query, "aria-valuemin": LOW, "aria-valuemax": HIGH },
        svg("circle", { class: "e-reach", cy: BASE + 6, r: 22 }), svg("path", { d: `M0 ${BASE - 7} l9 16 h-18 z` }));
      this.bars = keys.map((key) => svg("rect", { class: "e-bar", x: this.x(key) - 9, width: 18 }));
      this.amounts = keys.map((key) => svg("text", { class: "e-small", x: this.x(key), "text-anchor": "middle" }));
      this.points = keys.map((key, j) => svg("circle", { class: "e-entry", cx: this.x(key), cy: this.y(values[j]) }));
      const ticks = [0, 1, 2, 3, 4, 5].map((t) => svg("text", { class: "e-small", x: this.x(t), y: FOOT + 14, "text-anchor": "middle" }, String(t)));
      const field = svg("rect", { class: "e-field", x: 20, y: 4, width: WIDTH - 24, height: FOOT });
      this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${FOOT + 18}`, class: "e-picture wide", role: "group", "aria-label": strings.picture },
        field, svg("path", { class: "e-axis", d: `M20 ${BASE} H${WIDTH - 4} M20 ${FOOT} H${WIDTH - 4}` }),
        this.curve, this.guide, ...ticks, ...this.bars, ...this.amounts, ...this.points, this.output, this.label, this.handle);
      const place = (x) => this.move(LOW + ((x - 28) / (WIDTH - 40)) * (HIGH - LOW));
      movable(field, this.picture, place);
      movable(this.handle, this.picture, place, (dx, dy) => this.move(this.query + (dx + dy) * 0.05));
      this.slider = html("input", { type: "range", id: "soft-temperature", min: Math.log10(COLDEST) * STEPS, max: Math.log10(HOTTEST) * STEPS, step: 1 });
      this.slider.addEventListener("input", () => {
        this.T = Number((10 ** (this.slider.value / STEPS)).toPrecision(3));
        this.show();
      });
      this.amount = html("span", { class: "e-amount" });
      this.line = speaker();
      const states = [[...this.usual.query, ...this.usual.T], [...this.usual.query, COLDEST], [...this.usual.query, HOTTEST], [(keys[1] + keys[2]) / 2, COLDEST]];
      const stage = this.querySelector(".explorer-stage") ?? this.appendChild(html("div", { class: "explorer-stage" }));
      stage.replaceChildren(this.picture,
        html("div", { class: "explorer-slider" }, html("label", { for: "soft-temperature" }, strings.temperature), this.slider, this.amount),
        buttons(strings.presets, strings.names, (i) => {
          [this.query, this.T] = states[i];
          this.show();
        }), this.line, html("p", { class: "explorer-help" }, strings.help));
    }

    move(query) {
      this.query = round(clamp(query, LOW, HIGH));
      this.show();
    }

    show() {
      const { keys, values, query, T, strings } = this;
      const { weights, output } = lookup(query, T, keys, values);
      const steps = Array.from({ length: 241 }, (_, i) => LOW + (i / 240) * (HIGH - LOW));
      const path = steps.map((q) => `${this.x(q).toFixed(1)} ${this.y(lookup(q, T, keys, values).output).toFixed(1)}`);
      const [x, y] = [this.x(query), this.y(output)];
      put(this.curve, { d: `M${path.join("L")}` });
      put(this.guide, { d: `M${x} ${BASE} V${y} H20` });
      put(this.output, { cx: x, cy: y });
      const left = x > WIDTH * 0.6;
      put(this.label, { x: x + (left ? -10 : 10), y: y - 9, "text-anchor": left ? "end" : "start" });
      this.label.textContent = `${strings.answer} ${shown(output)}`;
      put(this.handle, { transform: `translate(${x} 0)`, "aria-valuenow": query, "aria-valuetext": shown(query, 2) });
      weights.forEach((weight, j) => {
        const height = weight * (FOOT - BASE - 34);
        put(this.bars[j], { y: FOOT - height, height });
        put(this.amounts[j], { y: FOOT - height - 4 });
        this.amounts[j].textContent = shown(weight, 2);
        put(this.points[j], { r: 4 + 6 * Math.sqrt(weight) });
      });
      const temperature = String(Number(T.toPrecision(3)));
      this.slider.value = Math.round(Math.log10(T) * STEPS);
      this.slider.setAttribute("aria-valuetext", temperature);
      this.amount.textContent = temperature;
      const greatest = Math.max(...weights);
      // a tie is equal up to rounding only
      const top = keys.filter((_, j) => greatest - weights[j] < 1e-9);
      const best = top.map((j) => filled(strings.key, { j })).join(strings.and);
      const told = { query: shown(query, 2), temperature, output: shown(output, 4), weight: shown(greatest), top: best };
      this.line.say(filled(strings.says, told));
      keep({ query: [query], T: [T] }, this.usual);
    }
  }

  begin("soft-dictionary", SoftDictionary);
}
