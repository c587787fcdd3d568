// <layout-detective>: drop a checkpoint, or paste names and shapes; says which layout it is, where a head lies, and what stays open.
// The layouts are those that the page's script shows. Files are read in the browser, their headers alone.
import { begin, buttons, filled, html, speaker, wordsOf } from "./panel.js";

const EXAMPLES = ["BERT", "GPT-2", "GPT-NeoX", "Falcon-40B", "LLaMA"];

/** {name: shape} of a layout in a model of that size. */
function shapesOf(layout, { E, H, K, D }) {
  const shapes = {};
  for (const [name, roles, axes] of layout.tensors) {
    const heads = [...roles].reduce((total, role) => total + ("qo".includes(role) ? H : K), 0);
    const length = { e: E, n: heads, d: D, "(n d)": heads * D };
    shapes[name] = axes.match(/\([^)]*\)|\S+/g).map((axis) => length[axis]);
  }
  return shapes;
}

/** {name: shape} of lines that have a name and numbers, in whatever brackets. */
export function pasted(lines) {
  const shapes = {};
  for (const line of lines.split("\n")) {
    const found = line.match(/^\W*([\w./:-]*[a-z_][\w./-]*)(?![\w./-])\W+(?:(?:torch\.)?[a-z]\w*\W+)?(\d[\d\s,x×]*)/i);
    if (found) shapes[found[1].replace(/:$/, "")] = found[2].split(/\D+/).filter(Boolean).map(Number);
  }
  return shapes;
}

if (globalThis.HTMLElement) {
  class LayoutDetective extends HTMLElement {
    connectedCallback() {
      if (this.words) return;
      this.words = wordsOf(this);
      const { words } = this;
      this.file = html("input", { type: "file", multiple: "" });
      this.names = html("textarea", { rows: "6", spellcheck: "false", placeholder: "layers.0.attn.qkv.weight (2304, 768)" });
      this.heads = html("input", { type: "number", min: "1", inputmode: "numeric" });
      this.head = html("input", { type: "number", min: "0", value: "0", inputmode: "numeric" });
      this.line = speaker();
      this.result = html("div", { class: "detective-result" });
      const labelled = (word, field) => html("label", {}, words[word], field);
      this.file.addEventListener("change", () => this.open([...this.file.files]));
      for (const name of ["dragover", "drop"]) this.addEventListener(name, (event) => event.preventDefault());
      this.addEventListener("drop", (event) => this.open([...event.dataTransfer.files]));
      this.names.addEventListener("input", () => {
        this.given = { tensors: pasted(this.names.value), config: {} };
        this.show();
      });
      for (const field of [this.heads, this.head]) field.addEventListener("input", () => this.show());
      const examples = buttons(words.examples, EXAMPLES, async (i) => {
        const { layouts } = await this.atlas();
        const layout = layouts.find(({ name }) => name === EXAMPLES[i]), H = 12;
        const shapes = shapesOf(layout, { E: 768, H, K: layout.grouped ? 4 : H, D: 64 });
        this.names.value = Object.entries(shapes).map(([name, shape]) => `layers.0.${name} (${shape.join(", ")})`).join("\n");
        this.names.dispatchEvent(new Event("input"));
      });
      this.querySelector(".explorer-stage").append(
        html("div", { class: "explorer-form" }, labelled("file", this.file), labelled("names", this.names),
          html("div", { class: "detective-numbers" }, labelled("heads", this.heads), labelled("head", this.head))),
        examples, html("p", { class: "explorer-help" }, words.help), this.line, this.result);
      this.line.say(words.idle, 0);
    }

    /** The layouts and the rules, once they are needed. */
    async atlas() {
      this.rules ??= import("./detective.js");
      this.data ??= fetch(new URL("../data/atlas.json", import.meta.url)).then((answer) => answer.json());
      return this.data;
    }

    /** Files: a checkpoint or the parts of one, and config.json. */
    async open(files) {
      const { header } = await import("./headers.js");
      const given = { tensors: {}, config: {}, calls: [], bytes: 0, size: 0, files: [] };
      try {
        for (const file of files) {
          const found = await header(file).catch((error) => {
            if (error.code === "index" && files.length > 1) return null; // its parts are here
            throw error.code ? error : Object.assign(error, { code: "broken", values: { format: file.name } });
          });
          if (!found) continue;
          Object.assign(given.tensors, found.tensors);
          Object.assign(given.config, found.config);
          given.calls.push(...found.calls);
          given.bytes += found.bytes;
          given.size += file.size;
          given.files.push(file.name);
        }
      } catch ({ code, values }) {
        this.result.replaceChildren();
        this.line.say(filled(this.words.unread[code], values));
        return;
      }
      this.given = given;
      await this.show();
    }

    async show() {
      const { given, words } = this;
      if (!given || !Object.keys(given.tensors).length) {
        this.result.replaceChildren();
        this.line.say(given?.files ? words.config : words.idle);
        return;
      }
      const atlas = await this.atlas(), rules = await this.rules;
      const heads = Number(this.heads.value) || null, head = Number(this.head.value) || 0;
      const layers = rules.find(given.tensors, atlas, given.config, heads);
      const read = given.bytes ? filled(words.read, { bytes: given.bytes.toLocaleString("en"), size: given.size.toLocaleString("en") }) : "";
      const calls = given.calls?.length ? filled(words.calls, { calls: given.calls.join(", ") }) : "";
      const sum = filled(layers.length ? words.found : words.nothing, { kinds: layers.length, all: Object.keys(given.tensors).length });
      this.line.say(`${sum}${read}${calls}`);
      this.result.replaceChildren(...layers.map((layer) => this.layer(layer, rules, heads, head)));
    }

    layer(layer, rules, asked, head) {
      const { words } = this, { heads } = layer;
      const code = (line) => html("code", {}, line);
      const rows = Object.entries(layer.names).map(([role, name]) => html("tr", {}, html("th", { scope: "row" }, words.roles[role] ?? role),
        html("td", {}, code(name)), html("td", {}, `(${layer.shapes[name].join(", ")})`)));
      const parts = [html("p", { class: "detective-name" }, filled(words.layer, { number: layer.number }), " ", code(layer.prefix || "…")),
        html("table", { class: "explorer-table" }, html("tbody", {}, ...rows))];
      if (!layer.readings.length) parts.push(html("p", {}, words.low));
      if (layer.readings.length > 1) parts.push(html("p", {}, words.open));
      if (layer.readings.length && !heads) parts.push(html("p", {}, asked ? filled(words.misfit, { heads: asked }) : words.ask));
      for (const reading of layer.readings) parts.push(...this.reading(layer, reading, rules, heads, head));
      return html("section", {}, ...parts);
    }

    reading(layer, reading, rules, heads, head) {
      const { words } = this, names = reading.layouts.map(({ name }) => name);
      const kind = reading.layout.order.split(" ")[0];
      const said = [html("strong", {}, names.length ? names.join(", ") : words.unknown)];
      if ("qkv" in layer.names) said.push(` – ${words.orders[kind]}`);
      const made = [html("p", { class: "detective-reading" }, ...said)];
      const found = heads && rules.headsOfKeys(layer, reading, heads);
      const lines = [];
      if (found && head < heads) {
        for (const role of "qkvo") {
          const there = Object.keys(layer.names).some((roles) => roles.includes(role));
          const own = "kv".includes(role) ? Math.floor(head / (heads / found[0])) : head;
          if (there) lines.push(`W_${role} = ${rules.where(layer, reading, role, own, heads)}`);
        }
      }
      if (names.length) {
        const keys = found && reading.layout.grouped ? `, ${found[0]}` : "";
        const kinds = new Map(); // of rotary pairs, one layout each: matrices are alike, the function is not
        for (const layout of reading.layouts) if (!kinds.has(layout.rotary)) kinds.set(layout.rotary, layout);
        for (const { name, rotary, beside } of kinds.values()) { // torch has no place for pairs, norms, sinks
          const [call, to, within] = rotary || beside.length ? ["to_paper", "", `, prefix="${reading.base}"`] : ["convert", ', "torch"', ""];
          lines.push(`${call}(state, "${name}"${to}, ${heads ?? "num_heads"}${keys}${within})`);
        }
      }
      if (lines.length) made.push(html("pre", {}, html("code", {}, lines.join("\n"))));
      const notes = this.notes(reading);
      if (notes.length) made.push(html("ul", {}, ...notes.map((note) => html("li", {}, note))));
      return made;
    }

    /** What the matrices do not say, of the layouts that read so. */
    notes({ layouts }) {
      const { words } = this, notes = [];
      const kinds = new Map();
      for (const { name, rotary } of layouts) kinds.set(rotary, [...(kinds.get(rotary) ?? []), name]);
      for (const [rotary, names] of kinds) if (rotary) notes.push(filled(words.rotary[rotary], { names: names.join(", ") }));
      for (const { name, beside, scale } of layouts) {
        const more = [...beside.map((one) => words.beside[one]), ...(scale === "1/sqrt(d)" ? [] : [filled(words.scale, { scale })])];
        if (more.length) notes.push(filled(words.more, { name, more: more.join(words.join) }));
      }
      for (const { name, mask } of layouts) if (mask && layouts.length === 1) notes.push(filled(words.mask[mask], { name }));
      return notes;
    }
  }
  begin("layout-detective", LayoutDetective);
}
