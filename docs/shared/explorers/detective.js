// Which layout a checkpoint has, from names and shapes: the rules of the recipe detective.py, on the data that its page's script shows.
// `atlas` is { layouts: [{name, library, tensors: [[name, roles, axes]], order, grouped, ...}], names: {fillers, roles, whole, out, heads} }.
const last = (text) => Math.max(text.lastIndexOf("."), text.lastIndexOf("/")) + 1;
const axesOf = (axes) => axes.match(/\([^)]*\)|\S+/g);
const isMatrix = ([, , axes]) => axes.includes("n") && axes.includes("e");
const isBias = ([, , axes]) => !isMatrix([, , axes]);
const ELSEWHERE = ["query_key_value", "qkv_proj"];
const divides = (a, b) => a > 0 && b % a === 0;

/** ["layers.0.attn.", "q_proj"] of "layers.0.attn.q_proj.weight". */
export function stem(name) {
  const bare = name.replace(/([._/](weight|kernel|w))?(:0)?$/, "").replace(/[./]linear$/, "");
  return [bare.slice(0, last(bare)), bare.slice(last(bare))];
}

function roleOf(component, names) {
  const lower = component.toLowerCase();
  if (lower === "kv_b_proj") return "low rank";
  if (names.whole.includes(lower)) return "qkv";
  const words = lower.split("_").filter((word) => !names.fillers.includes(word)).join("_");
  return Object.keys(names.roles).find((role) => names.roles[role].includes(words)) ?? "";
}

/** Whether several numbers lie in one. */
const packed = (name, tensors) => tensors.has(name.replace(/weight$/, "") + "scales") || tensors.has(`${name}.absmax`);

/** The names that make an attention layer, or nothing. */
function attention(prefix, found, tensors, names) {
  const { q, k, v, kv, qkv } = found;
  let kept;
  if (q && k && v) kept = { q, k, v };
  else if (q && (kv || qkv)) kept = { q, kv: kv || qkv };
  else if (qkv) {
    const [component, shape] = [stem(qkv)[1], tensors.get(qkv)];
    if (component === "in_proj" && qkv.endsWith(".weight") && !tensors.has(`${prefix}q_bias`)) return null;
    if (shape.length !== 2 || Math.max(...shape) <= Math.min(...shape)) return null;
    if (component === "input" && !tensors.has(`${prefix}output.weight`)) return null;
    kept = { qkv };
  } else return tensors.has(`${prefix}kv_b_proj.weight`) ? { "low rank": `${prefix}kv_b_proj.weight` } : null;
  const o = outputOf(prefix, kept, tensors, names);
  return o ? { ...kept, o } : kept;
}

function outputOf(prefix, kept, tensors, names) {
  const parent = prefix.replace(/[^./]+[./]$/, ""), own = Object.values(kept), first = tensors.get(own[0]);
  const out = new RegExp(`^(?:${names.out})$`);
  for (const [place, wanted] of [[prefix, ""], [parent, "out"], [parent, ""]]) {
    for (const [name, shape] of tensors) {
      if (!name.startsWith(place) || own.includes(name)) continue;
      const rest = stem(name.slice(place.length)).join("");
      const like = (shape.length === 2 || shape.length === 3) && shape.some((size) => first.includes(size));
      if (like && out.test(rest.toLowerCase()) && rest.includes(wanted)) return name;
    }
  }
  return "";
}

/** {e: width, nd: the numbers of all heads} */
function sizes(axes, shape) {
  const found = { e: 1, nd: 1 };
  axesOf(axes).forEach((axis, i) => { found[axis === "e" ? "e" : "nd"] *= shape[i]; });
  return found;
}

const ORDERS = {
  blocks: ([roles]) => (H, K) => [...roles].flatMap((role) => Array.from({ length: role === "q" ? H : K }, (_, h) => role + h)),
  groups: () => (H, K) => Array.from({ length: K }, (_, k) => [...Array.from({ length: H / K }, (_, j) => `q${k * (H / K) + j}`), `k${k}`, `v${k}`]).flat(),
  dealt: () => (H, K) => [...Array.from({ length: H }, (_, h) => `q${(h % K) * (H / K) + Math.floor(h / K)}`), ...[..."kv"].flatMap((role) => Array.from({ length: K }, (_, k) => role + k))],
  shards: ([number, roles]) => (H, K) => Array.from({ length: number }, (_, part) => [...roles].flatMap((role) => {
    const each = (role === "q" ? H : K) / number;
    return Array.from({ length: each }, (_, h) => role + (part * each + h));
  })).flat(),
};
const orderOf = (layout) => {
  const [kind, ...rest] = layout.order.split(" ");
  return ORDERS[kind](rest);
};

const part = (reading, name) => reading.layout.tensors.find(([own]) => reading.base + own === name);
const size = (layer, reading, role, letter) => sizes(part(reading, layer.names[role])[2], layer.shapes[layer.names[role]])[letter];

/** [K, D], or null if the shapes are not those of so many heads. */
export function headsOfKeys(layer, reading, H) {
  const role = ["k", "kv", "qkv"].find((one) => one in layer.names);
  const wide = ["q", "o"].find((one) => one in layer.names);
  const width = wide ? size(layer, reading, wide, "nd") : size(layer, reading, "qkv", "e");
  const D = width / H, rows = size(layer, reading, role, "nd") / D;
  const K = { k: rows, kv: rows / 2, qkv: (rows - H) / 2 }[role];
  return divides(H, width) && K >= 1 && divides(K, H) && Number.isInteger(K) ? [K, D] : null;
}

/** W_i of a role (q, k, v, o) in the paper's orientation, as an expression of Python. */
export function where(layer, reading, role, head, H) {
  const [K, D] = headsOfKeys(layer, reading, H);
  const name = Object.entries(layer.names).find(([roles]) => roles.includes(role))[1];
  const [, roles, axes] = part(reading, name);
  const all = orderOf(reading.layout)(H, K);
  const queries = reading.layout.tiled ? all.filter((slot) => slot[0] === "q").map((slot) => "o" + slot.slice(1)) : Array.from({ length: H }, (_, h) => `o${h}`);
  const n = (role === "o" ? queries : all.filter((slot) => roles.includes(slot[0]))).indexOf(role + head);
  const rows = `${n * D}:${n * D + D}`;
  const cut = { "(n d) e": rows, "e (n d)": `:, ${rows}`, "e n d": `:, ${n}`, "n e d": n, "n d e": n }[axes];
  const turned = { "(n d) e": role !== "o", "e (n d)": role === "o", "e n d": role === "o" }[axes];
  return `state["${name}"][${cut}]${turned ? ".T" : ""}`;
}

function fits(layout, main, tensors) {
  const matrices = layout.tensors.filter(isMatrix);
  const first = matrices.find(([, roles]) => roles.includes("q"))[0];
  const base = main.slice(0, -first.length);
  if (!main.endsWith(first) || (base && !"./".includes(base.at(-1)))) return null;
  if (matrices.some(([name, , axes]) => tensors.get(base + name)?.length !== axesOf(axes).length)) return null;
  const of = Object.fromEntries(matrices.map(([name, roles, axes]) => [roles, sizes(axes, tensors.get(base + name)).nd]));
  if (of.qkv) return (of.qkv === 3 * of.o && !layout.one) || (layout.grouped && of.o < of.qkv && of.qkv < 3 * of.o) ? base : null;
  if (of.kv) return of.q === of.o && of.kv === 2 * of.o ? base : null;
  return of.q === of.o && of.k === of.v && (of.k === of.q || (layout.grouped && divides(of.k, of.q))) ? base : null;
}

const oneWidth = (layout, base, tensors) =>
  new Set(layout.tensors.filter(isMatrix).map(([name, , axes]) => sizes(axes, tensors.get(base + name)).e)).size === 1;

function biasesAgree(layout, base, tensors) {
  const declared = layout.tensors.filter(isBias).map(([name]) => name);
  const other = layout.tensors.map(([name]) => name.replace(/(weight|kernel|w)$/, (end) => ({ weight: "bias", kernel: "bias", w: "b" })[end]));
  const there = new Set([...declared, ...other].filter((name) => tensors.has(base + name)));
  return !there.size || (there.size === declared.length && declared.every((name) => there.has(name)));
}

/** What such matrices are where no layout has their names: apart, in one way; together, in at least two. */
function usual(layer) {
  const packed = layer.shapes[layer.names.qkv] ?? [], turned = packed.length === 2 && packed[1] === 3 * packed[0];
  const tensors = Object.entries(layer.names).map(([role, name]) => {
    const kernel = turned || /(kernel|[./]w)$/.test(name), three = layer.shapes[name].length === 3;
    return [name, role, three ? (role === "o" && kernel ? "n d e" : "e n d") : kernel === (role === "o") ? "(n d) e" : "e (n d)"];
  });
  return ("qkv" in layer.names ? ["blocks qkv", "groups"] : ["blocks qkv"]).map((order) =>
    ({ base: "", layouts: [], layout: { name: "", tensors, order, grouped: true, beside: [], scale: "1/sqrt(d)" } }));
}

function readingsOf(layer, tensors, type, atlas) {
  const main = layer.names.q ?? layer.names.qkv;
  const only = (list, keep) => (list.some(keep) ? list.filter(keep) : list);
  const common = ({ library }) => ["torch", "transformers", library].indexOf(library);
  let found = [...atlas.layouts].sort((a, b) => common(a) - common(b)).map((layout) => ({ layout, base: fits(layout, main, tensors) })).filter(({ base }) => base !== null);
  const signed = ({ layout, base }) => layout.signs.length && layout.signs.every((sign) => tensors.has(base + sign));
  found = found.some(signed) ? found.filter(signed) : found.filter(({ layout }) => !layout.signs.length);
  found = only(found, ({ layout }) => layout.models.includes(type));
  const narrow = found.filter(({ layout, base }) => oneWidth(layout, base, tensors));
  const plain = usual(layer).filter(({ layout }) => oneWidth(layout, "", tensors));
  if (found.length && plain.length && !narrow.length) return plain;
  found = only(narrow.length ? narrow : found, ({ layout, base }) => biasesAgree(layout, base, tensors));
  const merged = new Map();
  for (const { layout, base } of found) {
    const reading = { layout, base, layouts: [layout] };
    const order = orderKey(layer, reading);
    if (order === null) continue;
    const key = [order, base, ...layout.tensors.filter(isMatrix).map(([name, , axes]) => `${name}:${axes}`).sort()].join("|");
    merged.set(key, { layout, base, layouts: [...(merged.get(key)?.layouts ?? []), layout] });
  }
  const known = [...merged.values()].sort((a, b) => b.layouts.length - a.layouts.length);
  if (known.length && !("o" in layer.names)) { // under a name that the layout alone knows
    const [{ base, layout }] = known, name = base + layout.tensors.find((one) => one[1] === "o" && isMatrix(one))[0];
    layer.names.o = name;
    layer.shapes[name] = tensors.get(name);
  }
  const decided = known.length && !unexplained(layer, known[0], tensors);
  if (decided && (!ELSEWHERE.includes(stem(main)[1]) || found.some(({ layout }) => layout.models.includes(type)))) return known;
  const there = known.map((reading) => orderKey(layer, reading));
  return [...known, ...usual(layer).filter((reading) => !there.includes(orderKey(layer, reading)))];
}

function unexplained(layer, reading, tensors) {
  const own = new Set(reading.layout.tensors.map(([name]) => reading.base + name));
  return "qkv" in layer.names && [...tensors].some(([name, shape]) =>
    name.startsWith(layer.prefix) && shape.length > 1 && !own.has(name) && !/rel|pos|bias|scale/.test(name));
}

function orderKey(layer, reading) {
  const apart = !("qkv" in layer.names);
  if (apart && (!reading.layout.tiled || size(layer, reading, "q", "nd") === size(layer, reading, "k", "nd"))) return "";
  if (!layer.heads) return reading.layout.order;
  const found = headsOfKeys(layer, reading, layer.heads);
  if (!found || (reading.layout.one && found[0] > 1)) return null;
  return orderOf(reading.layout)(layer.heads, found[0]).join();
}

function headsSaid(config, prefix, shape, { heads, halves }) {
  const half = halves.find((one) => prefix.replace("visual", "vision").includes(one)) ?? "text";
  const [own, text] = [half, "text"].map((one) => config[`${one}_config`]);
  const keys = prefix.includes("decoder") ? ["decoder_attention_heads", ...heads] : heads;
  for (const place of half !== "text" && (own || text) ? [own ?? {}] : [own ?? {}, config]) {
    if (place.hidden_size != null && !shape.includes(place.hidden_size)) continue;
    for (const key of keys) if (Number.isInteger(place[key])) return place[key];
  }
  return null;
}

function headsIn(prefix, names, tensors) {
  for (const [name, axis] of [["sinks", 0], ["relative_attention_bias.weight", 1], ["head_scale", 0]]) {
    const size = tensors.get(prefix + name)?.[axis];
    if (size != null) return size;
  }
  const rows = tensors.get(names.q) ?? [];
  if (rows.length === 3) return names.q.endsWith("W_Q") ? rows[0] : rows[1];
  for (const name of ["q_norm.weight", "q_layernorm.weight"]) {
    const norm = tensors.get(prefix + name) ?? [];
    if (rows.length && norm.length === 1 && norm[0] < rows[0] && divides(norm[0], rows[0])) return rows[0] / norm[0];
  }
  return null;
}

/** The attention layers of {name: shape}, those that are alike as one: [{prefix, names, shapes, number, heads, readings}]. */
export function find(shapes, atlas, config = {}, heads = null) {
  const tensors = new Map(Object.entries(shapes)), byPrefix = new Map(), kinds = new Map();
  for (const [name, shape] of tensors) {
    const [prefix, component] = stem(name), role = roleOf(component, atlas.names);
    if (!role || shape.length < 2 || shape.length > 3 || /(^|[./])exp_avg/.test(name) || packed(name, tensors)) continue;
    if (!byPrefix.has(prefix)) byPrefix.set(prefix, {});
    byPrefix.get(prefix)[role] ??= name;
  }
  for (const [prefix, found] of byPrefix) {
    const names = attention(prefix, found, tensors, atlas.names);
    if (!names) continue;
    const own = Object.fromEntries(Object.values(names).map((name) => [name, tensors.get(name)]));
    const there = [...tensors.keys()].filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length)).sort();
    const kind = [prefix.replace(/\d+/g, "#"), Object.keys(names), Object.values(own).join(";"), there].join("|");
    if (kinds.has(kind)) {
      kinds.get(kind).number++;
      continue;
    }
    const layer = { prefix, names, shapes: own, readings: [], number: 1, heads: null };
    kinds.set(kind, layer);
    if ("low rank" in names) continue;
    layer.heads = heads ?? headsSaid(config, prefix, own[Object.values(names)[0]], atlas.names) ?? headsIn(prefix, names, tensors);
    if (layer.heads && !headsOfKeys(layer, usual(layer)[0], layer.heads)) layer.heads = null;
    layer.readings = readingsOf(layer, tensors, config.model_type ?? "", atlas);
  }
  return [...kinds.values()];
}
