// Names and shapes of a checkpoint from its header: .safetensors, .index.json, .gguf, .pt, .pth, .bin, .ckpt. What is not the header is
// not read, nothing is uploaded, and of a pickle nothing is executed: it is walked over with plain values, and what it would call is named.
const text = (bytes) => new TextDecoder().decode(bytes);
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const MB = 2 ** 20;

/** Says in `code` (a word of words.yml) why a file is not read. */
class Unread extends Error {
  constructor(code, values = {}) {
    super(code);
    Object.assign(this, { code, values });
  }
}

/**
 * { format, tensors: {name: shape}, config, calls: what a pickle would have called, bytes: how many were read }
 * file: a File or Blob.
 */
export async function header(file) {
  let bytes = 0;
  const read = async (start, length) => {
    const found = new Uint8Array(await file.slice(start, start + length).arrayBuffer());
    bytes += found.length;
    return found;
  };
  const start = await read(0, 8);
  let found;
  if (text(start.subarray(0, 4)) === "GGUF") found = await gguf(read, file.size);
  else if (text(start.subarray(0, 2)) === "PK") found = await zip(read, file.size);
  else if (start[0] === 0x80) found = legacy(await read(0, Math.min(file.size, 64 * MB)));
  else if (start[0] === 0x7b) found = json(text(await read(0, file.size)));
  else found = await safetensors(read, file.size);
  return { config: {}, calls: [], ...found, bytes };
}

async function safetensors(read, size) {
  const length = Number(viewOf(await read(0, 8)).getBigUint64(0, true));
  if (!(length >= 2 && length <= Math.min(size - 8, 100 * MB))) throw new Unread("unknown");
  const start = text(await read(8, length));
  if (start[0] !== "{") throw new Unread("unknown");
  const { __metadata__: _, ...entries } = JSON.parse(start);
  return { format: "safetensors", tensors: Object.fromEntries(Object.entries(entries).map(([name, { shape }]) => [name, shape])) };
}

/** config.json, or an index: names, and no shapes. */
function json(source) {
  let found;
  try {
    found = JSON.parse(source);
  } catch {
    throw new Unread("unknown");
  }
  if (!found.weight_map) return { format: "config", tensors: {}, config: found };
  throw new Unread("index", { files: [...new Set(Object.values(found.weight_map))].join(", ") });
}

// GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header does not say how long it is.
async function gguf(read, size) {
  for (let length = Math.min(size, MB); ; length = Math.min(size, 4 * length)) {
    try {
      return ggufOf(await read(0, length));
    } catch (error) {
      if (!(error instanceof RangeError) || length >= size) throw new Unread("broken", { format: "GGUF" });
    }
  }
}

function ggufOf(bytes) {
  const view = viewOf(bytes);
  let at = 4;
  const number = (width, name) => {
    at += width;
    return Number(view[`get${name}`](at - width, true));
  };
  const u32 = () => number(4, "Uint32"), u64 = () => number(8, "BigUint64");
  const string = () => {
    const length = u64();
    if (at + length > bytes.length) throw new RangeError("short");
    at += length;
    return text(bytes.subarray(at - length, at));
  };
  const kinds = [[1, "Uint8"], [1, "Int8"], [2, "Uint16"], [2, "Int16"], [4, "Uint32"], [4, "Int32"], [4, "Float32"], [1, "Uint8"], , , [8, "BigUint64"], [8, "BigInt64"], [8, "Float64"]];
  const value = (kind) => {
    if (kind === 8) return string();
    if (kind !== 9) return number(...kinds[kind]);
    const inner = u32(), length = u64();
    const width = kinds[inner]?.[0];
    if (width) at += width * length; // numbers of a vocabulary
    else for (let i = 0; i < length; i++) value(inner);
    if (at > bytes.length) throw new RangeError("short");
    return null;
  };
  u32(); // version
  const count = u64(), keys = u64(), said = {}, tensors = {};
  for (let i = 0; i < keys; i++) said[string()] = value(u32());
  for (let i = 0; i < count; i++) {
    const name = string(), shape = [];
    for (let axes = u32(); axes > 0; axes--) shape.unshift(u64()); // the axis that changes fastest stands first
    tensors[name] = shape;
    u32();
    u64();
  }
  const model = said["general.architecture"] ?? "", config = { model_type: `gguf/${model}` };
  for (const [key, entry] of Object.entries(said)) if (key.startsWith(`${model}.attention.`)) config[key.split(".").at(-1)] = entry;
  return { format: "GGUF", tensors, config };
}

// torch.save since 1.6: a zip whose directory lies at its end, and in it data.pkl, not compressed.
async function zip(read, size) {
  const tail = await read(Math.max(0, size - 65557), Math.min(size, 65557)), ends = viewOf(tail);
  let end = tail.length - 22;
  while (end >= 0 && ends.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Unread("broken", { format: "zip" });
  let [count, length, start] = [ends.getUint16(end + 10, true), ends.getUint32(end + 12, true), ends.getUint32(end + 16, true)];
  if (start === 0xffffffff || count === 0xffff) { // zip64
    const far = viewOf(await read(Number(ends.getBigUint64(end - 12, true)), 56));
    [count, length, start] = [32, 40, 48].map((offset) => Number(far.getBigUint64(offset, true)));
  }
  const directory = await read(start, length), view = viewOf(directory);
  for (let at = 0; count > 0; count--) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const name = text(directory.subarray(at + 46, at + 46 + nameLength));
    if (/(^|\/)data\.pkl$/.test(name)) {
      const fields = [24, 20, 42].map((offset) => view.getUint32(at + offset, true)); // its size, packed size, place
      let extra = at + 46 + nameLength;
      if (view.getUint16(extra, true) === 1) {
        extra += 4;
        fields.forEach((field, i) => {
          if (field !== 0xffffffff) return;
          fields[i] = Number(view.getBigUint64(extra, true));
          extra += 8;
        });
      }
      if (view.getUint16(at + 10, true)) throw new Unread("packed");
      const local = viewOf(await read(fields[2], 30));
      const inside = fields[2] + 30 + local.getUint16(26, true) + local.getUint16(28, true);
      const { value, calls } = unpickled(await read(inside, fields[0]));
      return { format: "PyTorch", tensors: tensorsOf(stateOf(value)), calls };
    }
    at += 46 + nameLength + extraLength + commentLength;
  }
  throw new Unread("empty");
}

/** torch.save before 1.6: a magic number, a protocol, the system, then what was saved, one pickle each. */
function legacy(bytes) {
  const calls = new Set();
  for (let at = 0, i = 0; i < 4 && at < bytes.length; i++) {
    const one = unpickled(bytes.subarray(at));
    one.calls.forEach((call) => calls.add(call));
    const tensors = tensorsOf(stateOf(one.value));
    if (Object.keys(tensors).length || i === 3) return { format: "PyTorch", tensors, calls: [...calls] };
    at += one.end;
  }
  return { format: "pickle", tensors: {}, calls: [...calls] };
}

const HARMLESS = /^(torch\._(utils|tensor)\._rebuild_\w+|collections\.OrderedDict|torch\.(Size|device|bool|per_\w+|\w+(Storage|\d+\w*))|torch\.storage\.\w+)$/;
const isList = Array.isArray;

/** The value of a pickle with nothing called: { value, calls, end }. A call is { called, given, state }. */
function unpickled(bytes) {
  const view = viewOf(bytes), stack = [], marks = [], memo = [], calls = new Set();
  let at = 0;
  const take = (length) => {
    at += length;
    if (at > bytes.length) throw new Unread("broken", { format: "pickle" });
    return bytes.subarray(at - length, at);
  };
  const little = (length) => take(length).reduceRight((total, byte) => total * 256 + byte, 0);
  const line = () => text(take(bytes.indexOf(10, at) + 1 - at)).slice(0, -1);
  const top = () => stack.at(-1), above = () => stack.splice(marks.pop());
  const named = (name) => {
    if (!HARMLESS.test(name)) calls.add(name);
    return { name };
  };
  const put = (pairs) => {
    const into = top() instanceof Map ? top() : top()?.state;
    for (let i = 0; into && i < pairs.length; i += 2) into.set(pairs[i], pairs[i + 1]);
  };
  const call = (called, given) => {
    const name = called?.name ?? "";
    if (name === "collections.OrderedDict") return new Map(isList(given?.[0]) ? given[0] : []);
    if (/_rebuild_q?tensor/.test(name)) return { shape: given[2] };
    if (/_rebuild_param/.test(name)) return given[0];
    if (/_rebuild_from/.test(name)) return call(given[0], given[2]);
    return name === "torch.Size" ? given[0] : { called: name, given, state: new Map() };
  };
  const build = (state) => {
    if (top()?.state && state instanceof Map) for (const [key, value] of state) top().state.set(key, value);
  };
  const called = () => {
    const given = stack.pop();
    stack.push(call(stack.pop(), given));
  };
  const operations = {
    "\x80": () => take(1), "\x95": () => take(8), "(": () => marks.push(stack.length), "0": () => stack.pop(), "1": above,
    "2": () => stack.push(top()), N: () => stack.push(null), "\x88": () => stack.push(true), "\x89": () => stack.push(false),
    K: () => stack.push(little(1)), M: () => stack.push(little(2)), J: () => stack.push(viewOf(take(4)).getInt32(0, true)),
    "\x8a": () => stack.push(little(little(1))), G: () => stack.push(viewOf(take(8)).getFloat64(0)),
    I: () => stack.push(Number(line())), F: () => stack.push(Number(line())), L: () => stack.push(parseInt(line(), 10)),
    X: () => stack.push(text(take(little(4)))), T: () => stack.push(text(take(little(4)))), B: () => stack.push(text(take(little(4)))),
    "\x8c": () => stack.push(text(take(little(1)))), U: () => stack.push(text(take(little(1)))), C: () => stack.push(text(take(little(1)))),
    S: () => stack.push(line()), V: () => stack.push(line()),
    c: () => stack.push(named(`${line()}.${line()}`)),
    "\x93": () => {
      const name = stack.pop();
      stack.push(named(`${stack.pop()}.${name}`));
    },
    R: called, "\x81": called, b: () => build(stack.pop()), Q: () => stack.push({ storage: stack.pop() }), P: () => stack.push({ storage: line() }),
    ")": () => stack.push([]), "]": () => stack.push([]), "\x8f": () => stack.push([]), "}": () => stack.push(new Map()),
    t: () => stack.push(above()), l: () => stack.push(above()), "\x91": () => stack.push(above()),
    "\x85": () => stack.push(stack.splice(-1)), "\x86": () => stack.push(stack.splice(-2)), "\x87": () => stack.push(stack.splice(-3)),
    d: () => {
      const pairs = above();
      stack.push(new Map());
      put(pairs);
    },
    a: () => {
      const item = stack.pop();
      if (isList(top())) top().push(item);
    },
    e: () => {
      const items = above();
      if (isList(top())) for (const item of items) top().push(item);
    },
    s: () => put(stack.splice(-2)), u: () => put(above()),
    q: () => { memo[little(1)] = top(); }, r: () => { memo[little(4)] = top(); }, p: () => { memo[line()] = top(); }, "\x94": () => memo.push(top()),
    h: () => stack.push(memo[little(1)]), j: () => stack.push(memo[little(4)]), g: () => stack.push(memo[line()]),
  };
  operations["\x90"] = operations.e;
  for (;;) {
    const code = String.fromCharCode(take(1)[0]);
    if (code === ".") return { value: stack.pop(), calls: [...calls], end: at };
    if (!operations[code]) throw new Unread("broken", { format: "pickle" });
    operations[code]();
  }
}

/** What was saved, or the state dict in it. */
function stateOf(value) {
  for (let state = value; state instanceof Map;) {
    const entries = [...state];
    if (entries.some(([, one]) => isList(one?.shape))) return state;
    state = entries.find(([key]) => /^(state_dict|model|module)$/.test(key))?.[1];
  }
  return value;
}

/** {name: shape} of the tensors of a state dict, however deep it lies; of a saved module too. */
function tensorsOf(value, name = "", found = {}, seen = new Set()) {
  if (!value || typeof value !== "object" || seen.has(value)) return found;
  if (isList(value.shape)) {
    found[name] = value.shape;
    return found;
  }
  seen.add(value);
  const inside = value instanceof Map ? value : value.state ?? new Map();
  for (const [key, entry] of inside) {
    const own = /^_(parameters|modules|buffers)$/.test(key) ? name : name ? `${name}.${key}` : `${key}`;
    tensorsOf(entry, own, found, seen);
  }
  return found;
}
