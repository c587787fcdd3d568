// <head-quiz>: asks where a head lies, with numbers drawn anew each time, judges the answer and names the mistake.
// Everything above the element touches no document: a question, its answer, and what the known mistakes would answer.
import { begin, filled, html, speaker, wordsOf } from "./panel.js";

const SIZES = [[24, 4], [20, 5], [18, 3], [40, 8], [28, 7], [32, 4], [30, 5], [42, 6]];
const ROLES = ["q", "k", "v"];

/** A question, from random numbers of [0, 1): {kind: rows, columns or owner, E, H, t: 0 to 2 for q, k, v, head, row}. */
export function draw(random) {
  const pick = (n) => Math.floor(random() * n);
  const [E, H] = SIZES[pick(SIZES.length)];
  return { kind: ["rows", "rows", "columns", "owner"][pick(4)], E, H, t: pick(3), head: pick(H), row: pick(3 * E) };
}

/** The right answer: [from, to] as a slice has them, or of an owner [t, head]. */
export function answer({ kind, E, H, t, head, row }) {
  const D = E / H, start = (kind === "rows" ? t * E : 0) + head * D;
  return kind === "owner" ? [Math.floor(row / E), Math.floor((row % E) / D)] : [start, start + D];
}

/** [name of a mistake, what it answers], the first that fits being the one that is told; none of them is right. */
export function mistakes(question) {
  const { kind, E, H, t, head, row } = question, D = E / H, right = answer(question);
  const slice = (start, width = D) => [start, start + width], at = (part, i) => slice(part * E + i * D);
  const found = {
    rows: () => [["last", [right[0], right[1] - 1]], ["counted", at(t, head - 1)], ...ROLES.map((role, s) => [role, at(s, head)]),
      ["by_head", slice((3 * head + t) * D)], ["width", slice(t * E + head * H, H)]],
    columns: () => [["last", [right[0], right[1] - 1]], ["counted", at(0, head - 1)], ["values", at(2, head)], ["width", slice(head * H, H)]],
    owner: () => [["counted", [right[0], right[1] + 1]], ["by_head", [Math.floor(row / D) % 3, Math.floor(row / (3 * D))]],
      ["block", [right[0], Math.floor(row / D)]], ...ROLES.map((_, s) => ["role", [s, right[1]]]),
      ...Array.from({ length: H }, (_, i) => ["other", [right[0], i]])],
  }[kind]();
  return found.filter(([, given]) => String(given) !== String(right));
}

/** What there is to say of an answer: empty, right, the name of a mistake, or, of a wrong one that is unknown, a hint. */
export function judge(question, given) {
  if (given.some((number) => !Number.isInteger(number))) return "empty";
  const same = (other) => String(other) === String(given);
  return same(answer(question)) ? "right" : mistakes(question).find(([, other]) => same(other))?.[0] ?? (question.kind === "columns" ? "no_blocks" : "wrong");
}

/** A text with `code` in it. */
const coded = (text) => text.split("`").map((part, i) => (i % 2 ? html("code", {}, part) : part));

if (globalThis.HTMLElement) {
  class HeadQuiz extends HTMLElement {
    connectedCallback() {
      if (this.form) return;
      this.words = wordsOf(this);
      this.right = this.asked = 0;
      this.question = html("p", { "aria-live": "polite" });
      this.fields = html("div", { class: "explorer-form" });
      this.line = speaker();
      const check = html("button", { type: "submit" }, this.words.check), next = html("button", { type: "button" }, this.words.next);
      this.form = html("form", {}, this.question, this.fields, html("div", { class: "explorer-presets" }, check, next), this.line);
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.tell();
      });
      next.addEventListener("click", () => {
        this.ask();
        this.fields.querySelector("input, select").focus();
      });
      this.querySelector(".explorer-stage").append(this.form);
      this.ask();
    }

    ask() {
      const { words } = this, labelled = (text, field) => html("label", {}, text, field);
      const number = () => html("input", { inputmode: "numeric", autocomplete: "off" });
      this.drawn = draw(Math.random);
      this.first = true;
      const { kind, t } = this.drawn, owner = kind === "owner";
      this.question.replaceChildren(...coded(filled(words[kind], { ...this.drawn, role: words.roles[t] })));
      const role = html("select", {}, ...words.roles.map((text, i) => html("option", { value: i }, text)));
      this.given = [owner ? role : number(), number()];
      this.fields.replaceChildren(...this.given.map((field, i) => labelled(owner ? [words.whose, words.head][i] : "ab"[i], field)));
      this.line.say("", 0);
    }

    tell() {
      const { words } = this;
      const told = judge(this.drawn, this.given.map(({ value }) => (value.trim() ? Number(value.normalize("NFKC")) : NaN)));
      if (told !== "empty" && this.first) {
        this.asked += 1;
        this.right += told === "right";
        this.first = false;
      }
      const verdict = filled(words[told] ?? words.belongs, { role: words.roles[ROLES.indexOf(told)], E: this.drawn.E, H: this.drawn.H });
      this.line.say(verdict + (this.asked ? filled(words.score, { right: this.right, asked: this.asked }) : ""), 0);
    }
  }
  begin("head-quiz", HeadQuiz);
}
