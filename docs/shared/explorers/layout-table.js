// <layout-table>: the rows of the page's table that have a word and an order, with the reader's E, H and K in the shapes.
import { begin, filled, html, keep, speaker, wordsOf } from "./panel.js";

const SIZES = ["E", "H", "K"];

/** "((H+2K)D, E)" with numbers put in: "(1280, 1024)". */
export function computed(formula, sizes) {
  const factor = (text) => {
    if (text[0] !== "(") return sizes[text] ?? Number(text);
    return text.slice(1, -1).split("+").reduce((total, term) => total + product(term), 0);
  };
  const product = (text) => text.match(/\(.*?\)|\d+|[A-Z]/g).reduce((total, part) => total * factor(part), 1);
  return `(${formula.slice(1, -1).split(", ").map(product).join(", ")})`;
}

if (globalThis.HTMLElement) {
  class LayoutTable extends HTMLElement {
    connectedCallback() {
      if (this.rows) return;
      this.words = wordsOf(this);
      const { words } = this, asked = new URLSearchParams(location.search);
      this.rows = [...this.querySelectorAll("tbody tr")];
      this.shapes = [...this.querySelectorAll("tbody td:nth-child(2) code")].filter(({ textContent }) => /^\(.*[EHK]/.test(textContent))
        .map((node) => [node, node.textContent]);
      const orders = [...new Set(this.rows.map((row) => row.cells[2].textContent.trim()))].sort();
      this.word = html("input", { type: "search" });
      this.order = html("select", {}, html("option", { value: "" }, words.all), ...orders.map((order) => html("option", {}, order)));
      this.sizes = SIZES.map((name) => html("input", { type: "number", min: "1", inputmode: "numeric", name }));
      this.word.value = asked.get("word") ?? "";
      if (orders.includes(asked.get("order"))) this.order.value = asked.get("order");
      for (const field of this.sizes) field.value = asked.get(field.name) ?? "";
      this.line = speaker();
      const labelled = (text, field) => html("label", {}, text, field);
      for (const field of [this.word, this.order, ...this.sizes]) field.addEventListener("input", () => this.show());
      this.querySelector(".explorer-stage").append(
        html("div", { class: "explorer-form" }, labelled(words.word, this.word), labelled(words.order, this.order),
          ...this.sizes.map((field) => labelled(words[field.name], field))), this.line);
      this.show();
    }

    show() {
      const { words } = this, [E, H, K] = this.sizes.map(({ value }) => Number(value));
      const word = this.word.value.trim().toLowerCase(), order = this.order.value;
      let found = 0;
      for (const row of this.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(word) || (order && row.cells[2].textContent.trim() !== order);
        found += !row.hidden;
      }
      const fits = E > 0 && H > 0 && E % H === 0 && H % (K || H) === 0;
      const sizes = { E, H, K: K || H, D: E / H };
      for (const [node, formula] of this.shapes) node.textContent = fits ? computed(formula, sizes) : formula;
      const misfit = E && H && !fits ? filled(words.misfit, { E, H, K: K || H }) : "";
      this.line.say(`${filled(words.says, { found, all: this.rows.length })}${misfit}`);
      keep({ word: this.word.value, order, ...Object.fromEntries(this.sizes.map(({ name, value }) => [name, value])) });
    }
  }
  begin("layout-table", LayoutTable);
}
