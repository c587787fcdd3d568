// <option-grid>: choose values of options; the figure's numbers become the greatest errors of the cells that are left.
// data-options lists every option with its values, data-cells the compared cells (see `decode`), both from the page's script.
// On a published page the cells are a file, data-cells-at, which is fetched when a value is chosen or the tables are opened.
import { begin, filled, html, keep, speaker, wordsOf } from "./panel.js";

/** "mask=none|bool;dtype=float32" -> [{name, values}]. */
const optionsOf = (text) => text.split(";").map((part) => {
  const [name, values] = part.split("=");
  return { name, values: values.split("|") };
});

/**
 * The cells, six digits of base 36 each: the step of the place in the product, then -10 log10 of the error of outputs and
 * attention weights, then of gradients (1295: none). Returns [{choice: the value's index of every option, errors: [a, b]}].
 */
export function decode(text, options) {
  let place = 0;
  return text.match(/.{6}/g).map((six) => {
    const [step, ...errors] = six.match(/../g).map((two) => parseInt(two, 36));
    let rest = (place += step);
    const choice = options.map(() => 0);
    for (let i = options.length - 1; i >= 0; i--) {
      choice[i] = rest % options[i].values.length;
      rest = Math.floor(rest / options[i].values.length);
    }
    return { choice, errors: errors.map((e) => (e === 1295 ? null : e)) };
  });
}

/** The greatest error (the least of -10 log10) of `part` among cells, as the figure writes it. */
export function greatest(cells, part) {
  const found = cells.map((cell) => cell.errors[part]).filter((e) => e !== null);
  if (!found.length) return "·";
  const least = Math.min(...found);
  return least === 1294 ? "0" : `−${(least / 10).toFixed(1)}`;
}

const DRAWN = ["mask", "dtype", "mode"]; // rows, panels and columns of the figure: no filter for them
const FUSED = { mode: "eval no_grad", bias: "True", add_bias_kv: "False", add_zero_attn: "False", kdim_vdim: "False",
  batch_first: "True", batched: "True", self_attention: "True" };

/** Texts of the figure's panels in its order: float32 and float64 (masks x modes, then gradients), the fast path (masks x dtypes). */
export function panels(cells, options) {
  const at = Object.fromEntries(options.map(({ name }, i) => [name, i]));
  const is = (name, value) => (cell) => options[at[name]].values[cell.choice[at[name]]] === value;
  const [masks, dtypes, modes] = DRAWN.map((name) => options[at[name]].values);
  const columns = [...modes.map((mode) => [mode, 0]), ...modes.slice(0, 2).map((mode) => [mode, 1])];
  const fused = cells.filter((cell) => Object.entries(FUSED).every(([name, value]) => is(name, value)(cell)));
  const rows = masks.map((mask) => cells.filter(is("mask", mask)));
  return [
    ...dtypes.map((dtype) => rows.map((row) => columns.map(([mode, part]) =>
      greatest(row.filter(is("dtype", dtype)).filter(is("mode", mode)), part)))),
    masks.filter((mask) => !/^(float|mixed)/.test(mask)).map((mask) => dtypes.map((dtype) =>
      greatest(fused.filter(is("mask", mask)).filter(is("dtype", dtype)), 0))),
  ];
}

if (globalThis.HTMLElement) {
  class OptionGrid extends HTMLElement {
    connectedCallback() {
      if (this.strings) return;
      this.strings = wordsOf(this);
      this.options = optionsOf(this.dataset.options);
      this.drawn = [...this.querySelectorAll("figure svg:not(.figure__legend)")].map((svg) => [...svg.querySelectorAll("g.n text")]);
      this.addEventListener("fetched", () => this.changed()); // the tables, once they are asked for
      this.line = speaker();
      const reset = html("button", { type: "button" }, this.strings.reset);
      reset.addEventListener("click", () => {
        for (const field of this.fields) field.value = "";
        this.changed();
      });
      const asked = new URLSearchParams(location.search);
      this.fields = this.options.filter(({ name }) => !DRAWN.includes(name)).map(({ name, values }) => {
        const field = html("select", { name }, html("option", { value: "" }, this.strings.all), ...values.map((value) => html("option", { value }, value)));
        if (values.includes(asked.get(name))) field.value = asked.get(name);
        field.addEventListener("change", () => this.changed());
        return field;
      });
      const labels = this.fields.map((field) => html("label", {}, html("code", {}, field.name), field));
      this.querySelector(".explorer-stage").append(
        html("div", { class: "explorer-form", role: "group", "aria-label": this.strings.form }, ...labels),
        html("div", { class: "explorer-presets" }, reset), this.line);
      if (this.fields.some(({ value }) => value)) this.changed();
    }

    async changed() {
      keep(Object.fromEntries(this.fields.map(({ name, value }) => [name, value])));
      const { cells, cellsAt } = this.dataset;
      this.cells ??= decode(cells ?? (await (await fetch(cellsAt)).text()), this.options);
      this.show();
    }

    show() {
      let left = this.cells;
      for (const { name, value } of this.fields) {
        if (!value) continue;
        const i = this.options.findIndex((option) => option.name === name);
        const wanted = this.options[i].values.indexOf(value);
        left = left.filter((cell) => cell.choice[i] === wanted);
      }
      const tables = [...this.querySelectorAll("figure details table")].map((table) => [...table.querySelectorAll("tbody td")]);
      panels(left, this.options).forEach((rows, i) => {
        rows.flat().forEach((text, j) => {
          for (const place of [this.drawn[i]?.[j], tables[i]?.[j]]) if (place) place.textContent = text;
        });
      });
      const dtype = this.options.findIndex(({ name }) => name === "dtype");
      const worst = this.options[dtype].values.map((_, i) => greatest(left.filter((cell) => cell.choice[dtype] === i), 0));
      const [float32, float64] = worst;
      const told = { found: left.length.toLocaleString("en"), all: this.cells.length.toLocaleString("en"), float32, float64 };
      this.line.say(left.length ? filled(this.strings.says, told) : this.strings.none);
    }
  }
  begin("option-grid", OptionGrid);
}
