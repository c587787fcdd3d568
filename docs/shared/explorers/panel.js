// What the explorers share: words, arithmetic, elements, dragging, and the state in the address.

/** The words of an explorer, which the build gives to its element, in the page's language. */
export const wordsOf = (explorer) => JSON.parse(explorer.dataset.words);

/** Make explorers of the elements of that name: not in the task in which Material sets out, unless the browser looks for a section. */
export function begin(name, Explorer) {
  const define = () => customElements.define(name, Explorer);
  if (location.hash) define();
  else setTimeout(define);
}

/** A text with what stands in {braces} put in. */
export const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** Softmax of an array of numbers. The greatest is taken off first, so that no exponential overflows. */
export function softmax(scores) {
  const top = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - top));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

export const dot = (a, b) => a.reduce((total, x, i) => total + x * b[i], 0);
export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
export const numbers = (text) => (text ?? "").split(/[\s,]+/).filter(Boolean).map(Number);
export const indexOfMax = (list) => list.indexOf(Math.max(...list));

/** x with so many digits after the point and a true minus sign. */
export const shown = (x, digits = 3) => x.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");

function grow(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
export const html = (tag, attributes = {}, ...children) => grow(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  grow(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** Set attributes; a change of none costs nothing. */
export const put = (node, attributes) => grow(node, attributes, []);

/** Numbers of the address under `name`, if there are as many as `usual` has and each lies within [low, high]; else `usual`. */
export function asked(name, usual, low, high) {
  const found = numbers(new URLSearchParams(location.search).get(name));
  const fits = found.length === usual.length && found.every((x) => x >= low && x <= high);
  return fits ? found : [...usual];
}

const written = (value) => [value ?? ""].flat().join(" ");
let unwritten, later; // what a browser did not take, and when it is asked again

/** Keep texts, numbers and lists of them in the address; what is as usual does not stand there. */
export function keep(state, usual = {}) {
  unwritten ??= new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(state)) {
    if (written(value) === written(usual[name])) unwritten.delete(name);
    else unwritten.set(name, written(value));
  }
  write();
}

// Browsers throw when the address changes too often (Safari: a hundred times in half a minute).
function write() {
  clearTimeout(later);
  const text = unwritten.toString();
  try {
    history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : "") + location.hash);
    unwritten = null;
  } catch {
    later = setTimeout(write, 2000);
  }
}

/** A list of presets as buttons. */
export const buttons = (label, texts, press) => html("div", { class: "explorer-presets", role: "group", "aria-label": label },
  ...texts.map((text, i) => {
    const button = html("button", { type: "button" }, text);
    button.addEventListener("click", () => press(i));
    return button;
  }));

/** A live region that speaks once the hand has come to rest; what it says first, and without a wait, stands there at once. */
export function speaker(attributes = {}) {
  const line = html("p", { class: "explorer-says", "aria-live": "polite", ...attributes });
  let timer, begun;
  line.say = (text, rest = 250) => {
    clearTimeout(timer);
    const say = () => { line.textContent = text; };
    if (begun && rest) timer = setTimeout(say, rest);
    else say();
    begun = true;
  };
  return line;
}

/**
 * Let `handle` be dragged and moved by arrow keys (with Shift ten times as far) in the coordinates of `picture`'s viewBox.
 * place(x, y) is called with a position, step(dx, dy) with directions of 1 or 10.
 */
export function movable(handle, picture, place, step) {
  const at = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    place(point.x, point.y);
  };
  handle.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    handle.setPointerCapture(event.pointerId);
    (handle.hasAttribute("tabindex") ? handle : picture.querySelector("[tabindex]")).focus({ preventScroll: true });
    at(event);
  });
  // A finger on a handle drags it; Chromium heeds touch-action on the outermost svg only, where it would stop all scrolling.
  if (step) handle.addEventListener("touchstart", (event) => event.touches.length < 2 && event.preventDefault(), { passive: false });
  handle.addEventListener("pointermove", (event) => handle.hasPointerCapture(event.pointerId) && at(event));
  if (!step) return;
  handle.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    step(...way.map((d) => d * (event.shiftKey ? 10 : 1)));
  });
}
