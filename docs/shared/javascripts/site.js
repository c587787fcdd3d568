// Small help for the finished page; everything is readable without it.
const words = JSON.parse(document.getElementById("site-words").textContent); // of docs/words.yml

// The switch of language keeps the section and the state of explorers.
for (const link of document.querySelectorAll(".language-switch")) {
  const plain = link.href;
  const keep = () => {
    link.href = plain + location.search + location.hash;
  };
  link.addEventListener("pointerdown", keep);
  link.addEventListener("focus", keep);
  link.addEventListener("click", keep);
}

// Colours. A switch is one step, and is remembered as Material remembers it; the frame of the window follows.
const palette = document.forms.palette;
const framed = document.head.appendChild(Object.assign(document.createElement("meta"), { name: "theme-color" }));
const frame = () => {
  framed.content = getComputedStyle(document.querySelector(".md-header")).backgroundColor;
};
requestAnimationFrame(frame);
palette?.addEventListener("change", ({ target }) => {
  const { mdColorScheme: scheme, mdColorMedia: media } = target.dataset;
  document.body.dataset.switching = "";
  document.body.dataset.mdColorScheme = scheme;
  for (const option of palette.__palette) {
    option.nextElementSibling.hidden = option !== target;
  }
  __md_set("__palette", { index: [...palette.__palette].indexOf(target), color: { media, scheme, primary: "custom", accent: "custom" } });
  frame();
  requestAnimationFrame(() => requestAnimationFrame(() => delete document.body.dataset.switching));
});
palette?.addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    const other = [...palette.__palette].find((option) => !option.checked);
    other.click();
    other.focus();
  }
});

// Copying a formula gives its TeX.
document.addEventListener("copy", (event) => {
  const selection = document.getSelection();
  if (!selection || selection.isCollapsed) {
    return;
  }
  const range = selection.getRangeAt(0);
  const inside = (range.commonAncestorContainer.nodeType === 1 ? range.commonAncestorContainer : range.commonAncestorContainer.parentElement)?.closest("[data-tex]");
  const fragment = range.cloneContents();
  const formulas = fragment.querySelectorAll("[data-tex]");
  if (!inside && formulas.length === 0) {
    return;
  }
  const tex = (formula) => {
    const mark = formula.classList.contains("math--display") ? "$$" : "$";
    return mark + formula.dataset.tex + mark;
  };
  for (const formula of formulas) {
    formula.replaceWith(tex(formula));
  }
  event.clipboardData.setData("text/plain", inside ? tex(inside) : fragment.textContent);
  event.preventDefault();
});

// A block that scrolls can be scrolled with the keyboard, and its button makes way.
const scrolling = new ResizeObserver((boxes) => {
  for (const { target: box } of boxes) {
    if (getComputedStyle(box).overflowX !== "visible" && (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1)) {
      box.tabIndex = 0; // where nothing hovers, Material takes it from code again
      box.dataset.scrolls = "";
    }
  }
});

// What Material's script makes gets a name and a role as well; the button of a block of code is no landmark.
const name = (root) => {
  for (const box of root.querySelectorAll(".md-typeset pre, .md-typeset pre > code, .md-typeset__scrollwrap, .math--display")) {
    scrolling.observe(box);
  }
  for (const nav of root.querySelectorAll("nav.md-code__nav")) {
    nav.setAttribute("role", "none");
    nav.parentElement.addEventListener("click", () => {}); // iOS hovers only over what listens
  }
  for (const link of root.querySelectorAll(".md-annotation__index:not([aria-label])")) {
    link.setAttribute("aria-label", words.annotation);
    link.setAttribute("role", "button");
  }
};
name(document);
new MutationObserver((changes) => {
  for (const change of changes) {
    for (const node of change.addedNodes) {
      if (node.nodeType === 1 && node.parentElement) {
        name(node.parentElement);
      }
    }
  }
}).observe(document.body, { childList: true, subtree: true });

// The drawer of a narrow window, and the panels in it, are opened by labels: to a keyboard these are no buttons.
const drawer = document.querySelector("#__drawer");
const sidebar = document.querySelector(".md-sidebar--primary");
const label = document.querySelector(".md-header__button[for=__drawer]");
if (label && sidebar) {
  const opener = document.createElement("button");
  opener.className = "md-header__button md-icon drawer-opener";
  opener.setAttribute("aria-label", words.menu);
  opener.append(...label.childNodes);
  label.replaceWith(opener);
  const enter = () => [...sidebar.querySelectorAll("a, label")].find((stop) => stop.checkVisibility({ visibilityProperty: true }))?.focus();
  opener.addEventListener("click", () => {
    drawer.click();
    enter();
  });
  for (const title of sidebar.querySelectorAll("label:not(:has(a))")) {
    title.tabIndex = 0;
    title.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        event.stopPropagation(); // Material would press it again
        title.click();
        enter();
      }
    });
  }
  const tell = () => opener.setAttribute("aria-expanded", drawer.checked);
  const close = () => {
    drawer.checked = false;
    tell();
  };
  tell();
  drawer.addEventListener("change", tell);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && drawer.checked) {
      close();
      opener.focus();
    }
  });
  sidebar.addEventListener("focusout", ({ relatedTarget }) => {
    if (drawer.checked && relatedTarget && !sidebar.contains(relatedTarget)) {
      close();
    }
  });
}

// What nobody saw while the page came (see site.css) is laid out piece by piece, when there is time: no wait is long.
// The long tables of all claims and of all layouts wait until they are seen.
const come = () => {
  const end = performance.now() + 5;
  let piece;
  while (performance.now() < end && (piece = document.querySelector(".coming .md-content__inner > :not([data-here], .claims-scroll, layout-table)"))) {
    piece.dataset.here = ""; // no class: of tables, those that have none scroll
    document.body.offsetHeight;
  }
  if (piece) {
    requestIdleCallback(come, { timeout: 500 });
  }
};
if (document.documentElement.classList.contains("coming")) {
  requestIdleCallback(come, { timeout: 500 });
}

// A whole file, or a figure's numbers, are fetched when their box is opened.
for (const link of document.querySelectorAll("a[data-fetched]")) {
  link.closest("details").addEventListener("toggle", async () => {
    const answer = await fetch(link.href);
    if (!answer.ok) {
      return; // the link stands there still
    }
    const text = await answer.text();
    if (link.closest(".figure__numbers")) {
      const tables = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      const figure = link.closest("figure");
      link.parentElement.replaceWith(...tables.childNodes);
      figure.dispatchEvent(new Event("fetched", { bubbles: true })); // an explorer writes numbers of its own into them
    } else {
      link.replaceWith(Object.assign(document.createElement("code"), { textContent: text }));
    }
  }, { once: true });
}

// On paper everything is open, and dark on light.
const folded = new Set();
let scheme;
addEventListener("beforeprint", () => {
  scheme = document.body.getAttribute("data-md-color-scheme");
  document.body.setAttribute("data-md-color-scheme", "default");
  for (const box of document.querySelectorAll(".md-typeset details:not([open], .figure__numbers, .file)")) {
    box.open = true;
    folded.add(box);
  }
});
addEventListener("afterprint", () => {
  document.body.setAttribute("data-md-color-scheme", scheme);
  for (const box of folded) {
    box.open = false;
  }
  folded.clear();
});
