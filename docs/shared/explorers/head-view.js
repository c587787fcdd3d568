// <head-view>: what each head of a trained classifier attends to, example by example. The build's figure stands inside;
// the numbers, whole thousandths, are fetched from data/NAME.json when the element comes near. NAME stands in data-name.
import { html, keep, put, shown, speaker, svg } from "./panel.js";

/** The weights of one head's row of an example, [0, 1] each: to whom the token `query` attends. */
export const rowOf = (maps, { layer, head, query }) => maps[layer][head][query].map((thousandths) => thousandths / 1000);

/** Positions of the greatest weights, best first; equals stand in the order of the text. */
export const strongest = (row, count) => row.map((_, j) => j).sort((i, j) => row[j] - row[i] || i - j).slice(0, count);

/** Names of the examples that a reader of this language can choose: faces, and sentences of the language. */
export const choices = (data, language) => Object.keys(data.tensors).filter((name) => /^face-/.test(name) || name.startsWith(`${language}-`));

/** State from what the address asks, each part only if the data has it; the rest is as usual. */
export function stateFrom(query, data, language, usual) {
  const asked = new URLSearchParams(query);
  const example = choices(data, language).includes(asked.get("example")) ? asked.get("example") : usual.example;
  const maps = data.tensors[example];
  const index = (name, count) => (/^\d+$/.test(asked.get(name) ?? "") && Number(asked.get(name)) < count ? Number(asked.get(name)) : Math.min(usual[name], count - 1));
  const state = { example, layer: index("layer", maps.length), head: index("head", maps[0].length), query: index("query", maps[0][0].length) };
  return { ...state, view: ["lines", "map"].includes(asked.get("view")) ? asked.get("view") : usual.view };
}

const USUAL = { example: "face-6", layer: 0, head: 2, query: 3, view: "lines" };

const STRINGS = {
  ja: {
    example: "例", layer: "層", head: "ヘッド", view: "表示", lines: "線", map: "行列", query: "クエリ", key: "キー",
    faces: "顔文字", sentences: "文（おもちゃ）", space: "", categories: ["喜び", "悲しみ", "怒り", "驚き", "愛情", "照れ"], toy: ["悪い", "良い"],
    picture: (s) => `層${s.layer}、ヘッド${s.head}の注意の重み`,
    answer: (told, p, label) => `モデルの答え：${told}（${p}）、正解：${label}`,
    says: (token, list) => `「${token}」が見ている先：${list.map(([key, w]) => `「${key}」${w}`).join("、")}`,
    help: "左のトークンにポインターを置くか、上下の矢印キーで選びます。左右の矢印キーでヘッドが変わります。",
    wait: "データを読み込んでいます。", failed: "データを読み込めませんでした。上の図はそのまま使えます。",
  },
  en: {
    example: "example", layer: "layer", head: "head", view: "shown as", lines: "lines", map: "map", query: "query", key: "key",
    faces: "Faces", sentences: "Sentences (toy)", space: " ", categories: ["happy", "sad", "angry", "surprised", "love", "shy"], toy: ["bad", "good"],
    picture: (s) => `Attention weights of layer ${s.layer}, head ${s.head}`,
    answer: (told, p, label) => `The model says ${told} (${p}), the label is ${label}`,
    says: (token, list) => `“${token}” attends to ${list.map(([key, w]) => `“${key}” ${w}`).join(", ")}`,
    help: "Point at a token on the left, or choose it with the arrow keys up and down; left and right change the head.",
    wait: "The data is being loaded.", failed: "The data could not be loaded. The figure above stands without it.",
  },
};

const STEP = 26; // between tokens
const TOP = 46;
const WIDTH = 300;
const [LEFT, RIGHT] = [84, 196];

if (globalThis.HTMLElement) {
  class HeadView extends HTMLElement {
    connectedCallback() {
      if (this.stage) return;
      this.language = STRINGS[document.documentElement.lang] ? document.documentElement.lang : "en";
      this.strings = STRINGS[this.language];
      this.stage = this.querySelector(".explorer-stage") ?? this.appendChild(html("div", { class: "explorer-stage" }));
      this.stage.replaceChildren(html("p", { class: "explorer-says" }, this.strings.wait));
      this.near = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.load(), { rootMargin: "200px" });
      this.near.observe(this.stage);
    }

    disconnectedCallback() {
      this.near?.disconnect();
    }

    async load() {
      this.near.disconnect();
      try {
        const answer = await fetch(new URL(`../data/${this.dataset.name}.json`, import.meta.url));
        if (!answer.ok) throw new Error(answer.status);
        this.data = await answer.json();
      } catch {
        this.stage.replaceChildren(html("p", { class: "explorer-says", role: "alert" }, this.strings.failed));
        return;
      }
      this.state = stateFrom(location.search, this.data, this.language, USUAL);
      this.draw();
      this.show();
    }

    get maps() {
      return this.data.tensors[this.state.example];
    }

    get told() {
      return this.data.labels.examples[this.state.example];
    }

    // Controls

    draw() {
      const { strings } = this;
      const text = (name) => this.data.labels.examples[name].tokens.join(name.startsWith("face") ? "" : strings.space);
      const options = (start) => choices(this.data, this.language).filter((name) => name.startsWith(start)).map((name) => html("option", { value: name }, text(name)));
      this.fields = {
        example: this.field("example", html("optgroup", { label: strings.faces }, ...options("face-")), html("optgroup", { label: strings.sentences }, ...options(`${this.language}-`))),
        layer: this.field("layer"), head: this.field("head"),
        view: this.field("view", ...["lines", "map"].map((name) => html("option", { value: name }, strings[name]))),
      };
      this.picture = svg("svg", { class: "e-picture head-picture", role: "group" });
      this.drawing = svg("g");
      this.tokens = svg("g"); // these stay while the drawing changes: the pointer rests on them, and the focus
      this.picture.append(this.drawing, this.tokens);
      this.picture.addEventListener("keydown", (event) => this.key(event));
      this.answer = html("p", { class: "head-answer" });
      this.line = speaker();
      this.stage.replaceChildren(html("div", { class: "head-fields" }, ...Object.values(this.fields).map((field) => field.parentNode)),
        this.answer, this.picture, this.line, html("p", { class: "explorer-help" }, strings.help));
    }

    field(name, ...options) {
      const field = html("select", { name }, ...options);
      html("label", {}, this.strings[name], field);
      field.addEventListener("change", () => this.set({ [name]: ["layer", "head"].includes(name) ? Number(field.value) : field.value }));
      return field;
    }

    key(event) {
      const { query, head } = this.state;
      const [tokens, heads] = [this.told.tokens.length, this.maps[0].length];
      const change = {
        ArrowUp: { query: (query + tokens - 1) % tokens }, ArrowDown: { query: (query + 1) % tokens }, Home: { query: 0 }, End: { query: tokens - 1 },
        ArrowLeft: { head: (head + heads - 1) % heads }, ArrowRight: { head: (head + 1) % heads },
      }[event.key];
      if (!change || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      this.set(change);
    }

    set(change) {
      const next = { ...this.state, ...change };
      const maps = this.data.tensors[next.example];
      next.layer = Math.min(next.layer, maps.length - 1);
      next.head = Math.min(next.head, maps[0].length - 1);
      next.query = Math.min(next.query, maps[0][0].length - 1);
      this.state = next;
      this.show();
      keep(next, USUAL);
    }

    // Picture

    show() {
      const { state, strings, maps, told } = this;
      const counts = { layer: maps.length, head: maps[0].length };
      for (const [name, count] of Object.entries(counts)) {
        if (this.fields[name].length !== count) this.fields[name].replaceChildren(...Array.from({ length: count }, (_, i) => html("option", { value: i }, String(i))));
      }
      for (const [name, field] of Object.entries(this.fields)) field.value = String(state[name]);
      const names = state.example.startsWith("face") ? strings.categories : strings.toy;
      const best = told.chance.indexOf(Math.max(...told.chance));
      this.answer.textContent = strings.answer(names[best], shown(told.chance[best]), names[told.label]);
      put(this.picture, { "aria-label": strings.picture(state), viewBox: `0 0 ${WIDTH} ${TOP + told.tokens.length * STEP + 4}` });
      const row = rowOf(maps, state);
      const focused = this.tokens.contains(document.activeElement);
      if (this.named !== state.example) {
        this.named = state.example;
        this.queries = told.tokens.map((token, i) => this.query(token, i));
        this.tokens.replaceChildren(...this.queries);
      }
      this.queries.forEach((node, i) => put(node, { tabindex: i === state.query ? 0 : -1, "aria-pressed": i === state.query }));
      this.drawing.replaceChildren(
        svg("text", { class: "e-small head-end", x: LEFT - 8, y: TOP - 8 }, strings.query),
        ...(state.view === "map" ? this.map() : this.lines(row)));
      if (focused) this.queries[state.query].focus({ preventScroll: true });
      this.line.say(strings.says(told.tokens[state.query], strongest(row, 3).map((j) => [told.tokens[j], shown(row[j], 3)])));
    }

    text(px, i, text, kind) {
      return svg("text", { x: px, y: TOP + i * STEP + 18, class: kind }, text);
    }

    query(token, i) {
      const node = svg("g", { class: "head-query", role: "button", "aria-label": `${this.strings.query} ${token}` },
        svg("rect", { x: 2, y: TOP + i * STEP, width: LEFT - 4, height: STEP, rx: 3 }), this.text(LEFT - 8, i, token, "head-end"));
      const choose = () => this.state.query === i || this.set({ query: i });
      node.addEventListener("pointermove", choose); // entering is no movement: the picture may have come to the pointer
      node.addEventListener("click", () => {
        choose();
        this.queries[i].focus({ preventScroll: true });
      });
      return node;
    }

    lines(chosen) {
      const { layer, head, query } = this.state;
      const middle = (i) => TOP + i * STEP + STEP / 2;
      const line = (i, j, weight, kind) => svg("path", { class: kind, d: `M${LEFT} ${middle(i)}L${RIGHT} ${middle(j)}`, "stroke-opacity": weight });
      const others = this.maps[layer][head].flatMap((row, i) => (i === query ? [] : row.flatMap((w, j) => (w < 50 ? [] : [line(i, j, w / 2000, "head-line")]))));
      const best = strongest(chosen, 1)[0];
      return [
        svg("text", { class: "e-small", x: RIGHT + 8, y: TOP - 8 }, this.strings.key),
        ...others, ...chosen.map((w, j) => line(query, j, w, "head-line chosen")),
        ...this.told.tokens.map((token, j) => this.text(RIGHT + 8, j, token, j === best ? "head-best" : "")),
        ...chosen.map((w, j) => this.text(WIDTH - 2, j, shown(w, 3), "e-small head-end")),
      ];
    }

    map() {
      const { layer, head, query } = this.state;
      const tokens = this.told.tokens.length;
      const side = Math.min(STEP, (WIDTH - LEFT - 24) / tokens);
      const at = (j) => LEFT + 2 + j * side;
      const cells = this.maps[layer][head].flatMap((row, i) => row.map((w, j) => svg("rect", {
        class: "head-cell", x: at(j), y: TOP + i * STEP + 1, width: side - 1, height: STEP - 2, "fill-opacity": w / 1000,
      })));
      const keys = this.told.tokens.map((token, j) => svg("text", { class: "e-small", transform: `translate(${at(j) + side / 2} ${TOP - 5}) rotate(-50)` }, token));
      return [...cells, ...keys, svg("rect", { class: "head-row", x: LEFT + 1, y: TOP + query * STEP, width: tokens * side + 1, height: STEP })];
    }
  }

  customElements.define("head-view", HeadView);
}
