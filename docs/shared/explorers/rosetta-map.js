// <rosetta-map>: the packed matrix and the heads it is made of. The build's figure stands inside; this module lights
// the twin of a block, and answers for any embed_dim and num_heads. The functions that are exported touch no document.
import { begin, filled, html, keep, speaker, wordsOf } from "./panel.js";

const LARGEST = { embed_dim: 16384, num_heads: 256 };
const ROLES = ["q", "k", "v"];

/** A whole number from what was typed (full-width digits too), or null. */
export function whole(text) {
  const plain = String(text).normalize("NFKC").trim().replace(/^−/, "-");
  return /^[+-]?\d{1,15}$/.test(plain) ? Number(plain) : null;
}

/** Check one number: null, or why it will not do, as {why, name, ...}. `last` is the greatest that is allowed. */
function refusal(name, text, first, last) {
  const value = whole(text);
  if (value === null) return { why: String(text).trim() ? "number" : "empty", name, text: String(text).trim() };
  if (first === 1 && value < 1) return { why: "positive", name, value };
  if (value < first || value > last) return { why: first ? "large" : "range", name, value, first, last };
  return null;
}

/** Check embed_dim and num_heads together: null, or why the pair will not do. */
export function refusedPair(embedDim, numHeads) {
  const alone = refusal("embed_dim", embedDim, 1, LARGEST.embed_dim) ?? refusal("num_heads", numHeads, 1, LARGEST.num_heads);
  if (alone) return alone;
  const [E, H] = [whole(embedDim), whole(numHeads)];
  const rest = E % H;
  if (!rest) return null;
  const below = E - rest;
  const near = [below, below + H].filter((value) => value >= 1 && value <= LARGEST.embed_dim);
  return { why: "divisible", name: "embed_dim", E, H, rest, near };
}

/** The slices of one head: [{name, head, part, shape, code}], what the paper names and the code that picks it out. */
export function slices(E, H, head) {
  const D = E / H;
  const range = (offset) => `${offset + head * D}:${offset + (head + 1) * D}`;
  const weights = ROLES.map((role, t) => ({
    name: "W", head, part: role.toUpperCase(), shape: [E, D], code: `in_proj_weight[${range(t * E)}].T`,
  }));
  const biases = ROLES.map((role, t) => ({
    name: "b", head, part: role.toUpperCase(), shape: [D], code: `in_proj_bias[${range(t * E)}]`,
  }));
  return [...weights, { name: "W", head, part: "O", shape: [D, E], code: `out_proj.weight[:, ${range(0)}].T` }, ...biases];
}

/** Whose row this is in in_proj_weight: {role, head, column}; the row is that column of W_head. */
export function rowOwner(E, H, row) {
  const D = E / H;
  const inBlock = row % E;
  return { role: ROLES[Math.floor(row / E)], head: Math.floor(inBlock / D), column: inBlock % D };
}

/** A refusal as a sentence, in the words of the element. */
export function message(fault, strings) {
  const names = { head: strings.head, row: strings.row };
  const near = fault.near?.join(strings.or);
  return filled(strings[fault.why], { ...fault, name: names[fault.name] ?? fault.name, near });
}

/** W, 2, Q as W with a subscript and a superscript. */
function symbol(name, head, part) {
  return html("span", { class: "symbol" }, html("i", {}, name), html("sub", {}, String(head)), html("sup", {}, part));
}

const REST = 700; // ms
const FIELDS = { embed_dim: "24", num_heads: "4", head: "2", row: "41" };

if (globalThis.HTMLElement) {
  class RosettaMap extends HTMLElement {
    connectedCallback() {
      if (this.fields) return;
      this.strings = wordsOf(this);
      const asked = new URLSearchParams(location.search);
      this.prepareBlocks(asked.get("block"));
      this.prepareForm(asked);
      this.answer();
    }

    // The figure

    prepareBlocks(chosen) {
      this.blocks = [...this.querySelectorAll("g.block[data-head]")];
      if (!this.blocks.length) return;
      this.line = html("p", { class: "rosetta-line" }, this.strings.idle);
      this.blocks[0].closest(".figure__panels").after(this.line);
      for (const svg of new Set(this.blocks.map((block) => block.ownerSVGElement))) svg.setAttribute("role", "group");
      for (const [index, block] of this.blocks.entries()) {
        const { matrix, role, head, code, rows, columns } = block.dataset;
        block.setAttribute("role", "button");
        block.setAttribute("tabindex", index ? "-1" : "0");
        block.setAttribute("aria-label", `${matrix} [${rows}, ${columns}]: ${filled(this.strings.block, { role: this.strings[role], head })}, ${code}`);
        block.addEventListener("pointerenter", () => this.light(block));
        block.addEventListener("pointerleave", () => this.light(this.chosen));
        block.addEventListener("focus", () => this.light(block));
        block.addEventListener("blur", () => this.light(this.chosen));
        block.addEventListener("click", () => this.toggle(block));
        block.addEventListener("keydown", (event) => this.move(event, block));
      }
      this.choose(this.blocks.find((block) => this.key(block) === chosen));
    }

    key({ dataset }) {
      return dataset.role + dataset.head;
    }

    twin(block) {
      return this.blocks.find((other) => other !== block && this.key(other) === this.key(block));
    }

    move(event, block) {
      const at = this.blocks.indexOf(block);
      const last = this.blocks.length - 1;
      const to = {
        ArrowUp: this.blocks[at - 1], ArrowDown: this.blocks[at + 1],
        ArrowLeft: this.twin(block), ArrowRight: this.twin(block),
        Home: this.blocks[0], End: this.blocks[last],
      }[event.key];
      if (event.key === "Escape") this.choose();
      else if (event.key === "Enter" || event.key === " ") this.toggle(block);
      else if (to) {
        to.focus();
        this.choose(to);
      } else return;
      event.preventDefault();
    }

    toggle(block) {
      block.focus({ preventScroll: true });
      this.choose(block === this.chosen ? undefined : block);
    }

    // Light a block and keep it in the address, until another is chosen, or none.
    choose(block) {
      this.chosen = block;
      for (const other of this.blocks) {
        if (block) other.setAttribute("tabindex", other === block ? "0" : "-1");
        other.setAttribute("aria-pressed", String(other === block));
      }
      this.light(block);
      keep({ block: block && this.key(block) });
    }

    light(block) {
      const pair = block ? [block, this.twin(block)] : [];
      this.classList.toggle("lit", pair.length > 0);
      for (const other of this.blocks) other.classList.toggle("lit", pair.includes(other));
      if (!block) return this.line.replaceChildren(this.strings.idle);
      const { role, head, code } = block.dataset;
      this.line.replaceChildren(
        html("span", { class: `rosetta-role r-${role}` }, filled(this.strings.block, { role: this.strings[role], head })), " ",
        symbol("W", head, role.toUpperCase()), " = ", html("code", {}, code),
      );
    }

    // The form

    prepareForm(asked) {
      this.fields = {};
      const form = html("form", { class: "rosetta-form", "aria-label": this.strings.form });
      for (const [name, usual] of Object.entries(FIELDS)) {
        const field = html("input", { type: "text", inputmode: "numeric", autocomplete: "off", name, id: `rosetta-${name}`, "aria-describedby": "rosetta-fault" });
        field.value = asked.get(name) ?? usual;
        field.addEventListener("input", () => this.answer(REST));
        field.addEventListener("change", () => this.answer(0));
        field.addEventListener("keydown", (event) => this.step(event, name));
        form.append(html("label", { for: field.id }, this.strings[name] ?? name, field));
        this.fields[name] = field;
      }
      form.addEventListener("submit", (event) => event.preventDefault());
      this.fault = speaker({ class: "rosetta-fault", id: "rosetta-fault" });
      this.said = speaker({ class: "rosetta-said" });
      this.result = html("div", { class: "rosetta-result" });
      this.append(
        html("p", { class: "rosetta-title" }, this.strings.form),
        form, this.fault, this.said, this.result, html("p", { class: "rosetta-keys" }, this.strings.keys),
      );
    }

    step(event, name) {
      const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      const value = whole(this.fields[name].value);
      if (!direction || value === null) return;
      event.preventDefault();
      const H = whole(this.fields.num_heads.value);
      this.fields[name].value = String(value + direction * (name === "embed_dim" && H > 0 ? H : 1));
      this.answer(REST);
    }

    // A number half typed is not wrong yet: a fault is told `rest` ms later; what holds is shown at once and said later.
    answer(rest) {
      const typed = Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.value]));
      const [E, H] = [whole(typed.embed_dim), whole(typed.num_heads)];
      const pair = refusedPair(typed.embed_dim, typed.num_heads);
      const head = pair ?? refusal("head", typed.head, 0, H - 1);
      const fault = head ?? refusal("row", typed.row, 0, 3 * E - 1);
      for (const [name, field] of Object.entries(this.fields)) {
        const wrong = fault && (name === fault.name || (fault.why === "divisible" && name === "num_heads"));
        field.setAttribute("aria-invalid", String(Boolean(wrong)));
      }
      this.result.replaceChildren(...(head ? [] : this.told(E, H, whole(typed.head), fault ? null : whole(typed.row))));
      this.fault.say(fault ? message(fault, this.strings) : "", fault ? rest : 0);
      const said = fault ? [] : [...this.result.querySelectorAll("caption, .rosetta-row")].map((part) => part.textContent);
      if (rest !== undefined) this.said.say(said.join(" "), REST);
      keep(typed, FIELDS);
    }

    /** The table of a head, and below it whose a row is; null: there is no such row. */
    told(E, H, head, row) {
      const { strings } = this;
      const body = slices(E, H, head).map(({ name, part, shape, code }) => html("tr", {},
        html("th", { scope: "row" }, symbol(name, head, part)),
        html("td", {}, `(${shape.join(", ")}${shape.length > 1 ? "" : ","})`),
        html("td", {}, html("code", {}, code))));
      const caption = filled(strings.caption, { E, H, head, width: E / H });
      const table = html("table", { class: "rosetta-table" },
        html("caption", {}, caption),
        html("thead", {}, html("tr", {}, ...[strings.matrix, strings.shape, strings.code].map((text) => html("th", { scope: "col" }, text)))),
        html("tbody", {}, ...body));
      const scroll = html("div", { class: "rosetta-scroll", tabindex: "0", role: "group", "aria-label": caption }, table);
      if (row === null) return [scroll];
      const owner = rowOwner(E, H, row);
      const answer = html("p", { class: "rosetta-row" }, filled(strings.owner, { row, role: strings[owner.role], head: owner.head }), " ",
        html("code", {}, `in_proj_weight[${row}]`), " = ", symbol("W", owner.head, owner.role.toUpperCase()),
        html("code", {}, `[:, ${owner.column}]`));
      return [scroll, answer];
    }
  }

  begin("rosetta-map", RosettaMap);
}
