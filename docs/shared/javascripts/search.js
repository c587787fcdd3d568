// The worker behind the search field. It speaks the messages of Material's own worker, so that field, list and keys stay
// Material's. The text of the whole site is looked through for each query: that takes milliseconds, finds a word of
// Japanese without knowing where words end, and leaves nothing to be indexed by one program and asked by another.

// ---------------------------------------------------------------- words

const JAPANESE = /[\u3040-\u30ff\u3400-\u9fff々]/;
const BORDER = /(?<=[\u3040-\u30ff\u3400-\u9fff々])(?=[A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?=[\u3040-\u30ff\u3400-\u9fff々])/;
const WORDS = globalThis.Intl?.Segmenter && new Intl.Segmenter("ja", { granularity: "word" });
const IDLE = new Set(
  "a an and are as at be by can do does for from get how i in into is it my of on or per that the this to use using what when which why with you".split(" "),
);

// One spelling for what is one word: case, width, multi-head and multihead, パラメータ and パラメーター, \sqrt{d} and √d.
const fold = (text) =>
  text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[‐-―−]/g, "-")
    .replace(/(?<=[a-z])-(?=[a-z0-9])/g, "")
    .replace(/\\?sqrt\b *[{(]?/g, "√")
    .replace(/(?<=[ァ-ヶー])・(?=[ァ-ヶ])/g, "")
    .replace(/(?<=[アカサタナハマヤラワガザダバパャァ])ー/g, "")
    .replace(/(?<=[ァ-ヶー](?:リ|ティ))ー(?![ァ-ヶ])/g, "");

// in_proj_weight, nn.MultiheadAttention and multi-head are found whole and by their parts.
const parts = (word) =>
  word
    .replace(/[a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z])/g, "$& ")
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter(Boolean);
const COMPOUND = /[A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)+|[A-Za-z][a-z0-9]*[A-Z][A-Za-z0-9]*/g;
const spread = (text) => [fold(text), ...[...text.matchAll(COMPOUND)].flatMap(([word]) => parts(word))].join("|");

const unspaced = (text) => text.replace(/\s+/g, "");
const named = (written) => ({ written, whole: fold(written), glued: unspaced(fold(written)), spread: spread(written) });

// mask, masks, masked and masking have one root; so have 取り出し and 取り出し方.
const root = (word) => {
  if (JAPANESE.test(word)) {
    return word.replace(/(?<=..)(?:とは|する|した|方法|方)$/, "");
  }
  const bare = word.replace(/i[sz](?:ations?|e[drs]?|ing)$/, "").replace(/(?:ations?|ions?|ing|ed|es|s|e)$/, "");
  const single = bare === word ? word : bare.replace(/([b-df-hj-np-tv-z])\1$/, "$1"); // splitting
  return /^[a-z]{4,}$/.test(word) && single.length > 2 ? single : word;
};

const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** What is looked for: the word where it stands alone counts 1, where it is part of another or only shares the root less. */
class Term {
  constructor(text, written = text) {
    this.text = text;
    this.written = written;
    const pieces = /^[a-z]+(?:-[a-z0-9]+)+$/i.test(written) ? parts(written) : [text];
    const word = pieces.map(literal).join(" ?");
    const bare = root(text);
    this.pattern = /^[a-z0-9]/.test(text)
      ? `(?<![a-z0-9])(?:${word}(?<rest>[a-z0-9_]*)${bare === text ? "" : `|${bare}[a-z]${bare.length > 3 ? "*" : "{0,3}"}(?![a-z0-9_])`})`
      : `${word}(?<rest>)${bare === text ? "" : `|${literal(bare)}`}`;
    this.regex = new RegExp(this.pattern, "g");
  }
  count(text) {
    let sum = 0;
    for (const { groups } of text.matchAll(this.regex)) {
      sum += groups.rest === "" ? 1 : 0.6;
    }
    return sum;
  }
  /** The same for text as it is written: fold has taken nothing but these signs away. */
  get shown() {
    const signs = "[-‐-―ー・]?";
    const loose = (text) => [...text].map(literal).join(signs) + (JAPANESE.test(text) ? "ー?" : "");
    const bare = root(this.text);
    const before = /^[a-z0-9]/.test(this.text) ? "(?<![A-Za-z])" : "";
    return (bare === this.text ? "" : `${before}${loose(bare)}${before ? "[a-z]*" : ""}|`) + before + loose(this.text);
  }
}

/** How many letters have to be changed, left out, put in or swapped to make one word of the other. */
const distance = (one, other) => {
  let [older, last] = [[], Array.from({ length: other.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= one.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= other.length; j += 1) {
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (one[i - 1] !== other[j - 1]));
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]) {
        row[j] = Math.min(row[j], older[j - 2] + 1);
      }
    }
    [older, last] = [last, row];
  }
  return last[other.length];
};

// ---------------------------------------------------------------- the site

class Site {
  /** docs: {location, title, text, code, words, names, boost}, a page's own before its sections. */
  constructor(docs) {
    const pages = new Map();
    for (const doc of docs) {
      const address = doc.apart ? doc.location : doc.location.split("#")[0];
      if (!pages.has(address)) {
        pages.set(address, { entries: [], words: [], names: [], boost: doc.boost ?? 1, length: 0 });
      }
      const page = pages.get(address);
      page.words.push(...(doc.words ?? []).map(named));
      page.names.push(...(doc.names ?? []).map(named));
      const { whole, glued, spread: title } = named(doc.title);
      const [text, code] = [spread(doc.text), spread(doc.code ?? "")];
      page.entries.push({ doc, whole, glued, title, text, code, side: unspaced(text), length: doc.text.length });
      page.length += doc.text.length;
    }
    this.pages = [...pages.values()];
    this.docs = new Map(docs.map((doc) => [doc.location, doc]));
    const entries = this.pages.flatMap((page) => page.entries);
    this.everything = [
      ...this.pages.flatMap((page) => [...page.words, ...page.names].map((word) => word.spread)),
      ...entries.flatMap((entry) => [entry.title, entry.text, entry.code]),
    ].join("\n");
    const length = entries.reduce((sum, entry) => sum + entry.length, 1);
    this.mean = { page: length / this.pages.length, entry: length / entries.length };
  }

  has(word, written) {
    return new RegExp(new Term(word, written).pattern).test(this.everything);
  }

  /** The word of the site that a mistyped one most likely means. */
  near(word) {
    if (!/^(?:[a-z]{5,}|[ァ-ヶー]{4,})$/.test(word)) {
      return undefined;
    }
    this.words ??= [...this.everything.matchAll(/(?<![a-z0-9_])[a-z]{4,}(?![a-z0-9_])|[ァ-ヶー]{4,}/g)].reduce(
      (often, [known]) => often.set(known, (often.get(known) ?? 0) + 1),
      new Map(),
    );
    let [best, least] = [undefined, word.length < 8 ? 1.5 : 2.5];
    for (const [known, often] of this.words) {
      if (known[0] === word[0] && Math.abs(known.length - word.length) < 3) {
        const far = distance(word, known) - Math.min(often, 99) / 200;
        [best, least] = far < least ? [known, far] : [best, least];
      }
    }
    return best;
  }

  /** Japanese that stands nowhere as it is: the longest runs of its words that do, and the words that do not. */
  cut(run) {
    const words = WORDS ? [...WORDS.segment(run)].map(({ segment }) => segment) : [...run];
    const pieces = [];
    for (let start = 0, end; start < words.length; start = end) {
      for (end = Math.min(words.length, start + 8); end > start + 1 && !this.has(words.slice(start, end).join("")); end -= 1);
      pieces.push(words.slice(start, end).join(""));
    }
    return pieces.filter((piece) => /[^ぁ-ん]/.test(piece)); // の, から, です
  }

  /** What a query asks for: terms that stand somewhere, words that stand nowhere, and what was taken in their place. */
  read(query) {
    const asked = { terms: new Map(), nowhere: [], instead: [] };
    const words = query
      .split(/[\s、。，,;!?"“”「」（）()[\]{}<>]+/)
      .map((word) => word.replace(/^['`.:-]+|['`.:-]+$/g, ""))
      .filter(Boolean)
      .flatMap((word) => (this.has(fold(word), word) ? [word] : word.split(BORDER)));
    const telling = words.filter((word) => !IDLE.has(word.toLowerCase()));
    for (const word of telling.length ? telling : words) {
      for (const term of this.terms(word, asked)) {
        asked.terms.set(term.text, term);
      }
    }
    return { ...asked, terms: [...asked.terms.values()] };
  }

  terms(word, asked) {
    const folded = fold(word);
    if (this.has(folded, word)) {
      return [new Term(folded, word)];
    }
    const near = this.near(folded);
    if (near) {
      asked.instead.push([word, near]);
      return [new Term(near)];
    }
    const pieces = JAPANESE.test(word) ? this.cut(folded) : [];
    if (pieces.some((piece) => this.has(piece))) {
      return pieces.flatMap((piece) => this.terms(piece, asked));
    }
    const last = fold(word.split(".").at(-1)); // torch.nn.functional.softmax: the site may call it F.softmax
    if (word.includes(".") && this.has(last)) {
      return [new Term(last)];
    }
    asked.nowhere.push(word);
    const some = parts(word);
    return some.length > 1 && some.every((part) => this.has(part)) ? some.map((part) => new Term(part)) : [];
  }

  /** The pages that a query finds, best first: those with all its words before those with some. */
  find(typed) {
    const query = typed.normalize("NFKC");
    const { terms, nowhere, instead } = this.read(query);
    const glued = unspaced(instead.reduce((text, [word, near]) => text.replace(fold(word), near), fold(query)));
    const rows = this.pages.map((page) => ({ page, hits: terms.map((term) => this.hit(term, page)) }));
    const rare = terms.map((_, t) => {
      const often = rows.filter(({ hits }) => hits[t]).length;
      return Math.log(1 + (rows.length - often + 0.5) / (often + 0.5));
    });
    const found = rows.filter(({ hits }) => hits.some(Boolean));
    for (const row of found) {
      const sum = (each) => row.hits.reduce((all, hit, t) => all + (hit ? rare[t] * each(hit) : 0), 0);
      row.all = row.hits.filter(Boolean).length;
      row.entries = row.page.entries.map((entry, i) => ({ entry, score: sum((hit) => hit.entries[i]) }));
      const together = Math.max(...row.entries.map(({ score }) => score));
      const phrase = glued === terms[0].text ? 0 : this.phrase(glued, row.page) * sum(() => 2);
      row.score = (sum((hit) => hit.score) + together + phrase) * row.page.boost;
    }
    found.sort((a, b) => b.all - a.all || b.score - a.score);
    return { terms, nowhere, instead, found };
  }

  /** How well one page answers one term; undefined where it does not. Where a word stands tells more than how often. */
  hit(term, page) {
    const called = (words) => Math.max(0, ...words.map((word) => (word.whole === term.text ? 1 : term.count(word.spread) ? 0.4 : 0)));
    const seen = { text: 0, code: 0, heading: 0 };
    const scores = page.entries.map((entry) => {
      const [inTitle, inText, inCode] = [entry.title, entry.text, entry.code].map((text) => term.count(text));
      const title = inTitle && (entry.whole === term.text ? 1 : 0.4 + (0.4 * term.text.length) / entry.whole.length);
      seen.text += inText;
      seen.code += inCode > 0;
      seen.heading = Math.max(seen.heading, title);
      return { title, score: title + inText / (inText + 0.5 + 0.7 * (entry.length / this.mean.entry)) + (inCode ? 0.4 : 0) };
    });
    const [words, names] = [called(page.words), called(page.names)];
    if (!(words || names || seen.text || seen.code || seen.heading)) {
      return undefined;
    }
    const text = seen.text / (seen.text + 1.5 + 1.5 * (page.length / this.mean.page));
    const score = 3 * words + 1.2 * names + 2 * scores[0].title + 1.5 * seen.heading + text + (0.6 * seen.code) / (seen.code + 1);
    return { score, entries: scores.map((one, i) => one.score + (i ? 0 : 2 * words + names)) };
  }

  /** Whether the words of a query stand side by side, and where. */
  phrase(glued, page) {
    const names = [...page.words, ...page.names, ...page.entries];
    if (names.some((name) => name.glued === glued)) {
      return 1;
    }
    if (names.some((name) => name.glued.includes(glued))) {
      return 0.6;
    }
    return page.entries.some((entry) => entry.side.includes(glued)) ? 0.3 : 0;
  }
}

// ---------------------------------------------------------------- what is shown

const AROUND = 90; // letters of Latin text on each side of a match
const SECTIONS = 6; // at most, of one page
const clean = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);

const marked = (text, pattern) => {
  let [html, end] = ["", 0];
  for (const match of text.matchAll(pattern)) {
    html += `${clean(text.slice(end, match.index))}<mark>${clean(match[0])}</mark>`;
    end = match.index + match[0].length;
  }
  return html + clean(text.slice(end));
};

/** The part of a section in which most of the terms stand close together, and the words of its code that match. */
const teaser = (doc, terms, pattern) => {
  const { text = "", code = "" } = doc;
  const wide = JAPANESE.test(text) ? AROUND / 2 : AROUND;
  const places = terms.flatMap((term, t) => [...text.matchAll(new RegExp(term.shown, "gi"))].map(({ index }) => ({ index, t })));
  const within = (place) => new Set(places.filter(({ index }) => index >= place.index && index < place.index + 1.5 * wide).map(({ t }) => t)).size;
  const place = places.reduce((one, other) => (one && within(one) >= within(other) ? one : other), undefined)?.index ?? 0;
  const start = place < wide ? 0 : text.slice(place - wide / 2, place).search(/[\s。、]/) + 1 + place - wide / 2;
  const rest = text.slice(start, start + 2 * wide);
  const part = start + 2 * wide < text.length ? rest.replace(/[^\s。、]*$/, "") || rest : rest;
  const words = code.split(" ").filter((word) => word.search(pattern) >= 0).slice(0, 8);
  return [
    text && `<p>${start ? "… " : ""}${marked(part.trim(), pattern)}${start + part.length < text.length ? " …" : ""}</p>`,
    words.length && `<p>${words.map((word) => `<code>${marked(word, pattern)}</code>`).join(" ")}</p>`,
  ]
    .filter(Boolean)
    .join("");
};

/** The answer as Material's list takes it: for each page its sections, best first, and the page itself among them. */
const answer = (site, query) => {
  const { terms, nowhere, instead, found } = site.find(query);
  const pattern = new RegExp(terms.map((term) => term.shown).join("|") || "$^", "gi");
  const items = new Map();
  found.forEach(({ page, hits, entries }, rank) => {
    const said = Object.fromEntries(terms.map((term, t) => [term.written, Boolean(hits[t])]));
    const address = page.entries[0].doc.location.split("#")[0];
    const least = Math.min(...entries.map(({ score }) => score));
    const best = Math.max(...entries.map(({ score }) => score));
    const shown = entries
      .filter(({ entry, score }) => score > 0 || entry.doc.location === address)
      .sort((one, other) => other.score - one.score)
      .filter(({ entry }, i) => i < SECTIONS || entry.doc.location === address)
      .map(({ entry: { doc }, score }) => ({
        location: doc.location,
        title: marked(doc.title, pattern),
        text: teaser(doc, terms, pattern),
        terms: said,
        score: found.length - rank - (best - score) / (best - least + 1), // Enter opens the greatest
        ...(doc.location === address && tags(page, terms)),
      }));
    items.set(address, [...(items.get(address) ?? []), ...shown].slice(0, SECTIONS + 1));
  });
  for (const [address, item] of items) {
    if (!item.some(({ location }) => location === address)) {
      item.push({ ...site.docs.get(address), text: "", terms: {}, score: 0 });
    }
  }
  return { items: [...items.values()], nowhere, instead };
};

/** Words that a page does not say but is found by. */
const tags = (page, terms) => {
  const found = page.words.filter((word) => terms.some((term) => term.count(word.spread) && !page.entries.some((entry) => term.count(entry.title) || term.count(entry.text))));
  return found.length ? { tags: found.map(({ written }) => clean(written)) } : {};
};

// ---------------------------------------------------------------- Material's messages

const [SETUP, READY, QUERY, RESULT] = [0, 1, 2, 3];
let site;
addEventListener("message", ({ data: { type, data } }) => {
  if (type === SETUP) {
    site = new Site(data.docs);
    postMessage({ type: READY });
  } else if (type === QUERY) {
    postMessage({ type: RESULT, data: answer(site, data) });
  }
});
