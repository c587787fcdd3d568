// Small help for the finished page; everything is readable without it.
const japanese = document.documentElement.lang === "ja";

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

// What Material's script makes gets a name and a role as well.
const names = japanese ? { code: "コードの操作", annotation: "注釈" } : { code: "Code actions", annotation: "Annotation" };
let navigations = 0;
const name = (root) => {
  for (const nav of root.querySelectorAll("nav.md-code__nav:not([aria-label])")) {
    navigations += 1;
    nav.setAttribute("aria-label", `${names.code} ${navigations}`);
  }
  for (const link of root.querySelectorAll(".md-annotation__index:not([aria-label])")) {
    link.setAttribute("aria-label", names.annotation);
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

// A block that scrolls sideways can be scrolled with the keyboard.
const scrollers = () => {
  for (const box of document.querySelectorAll(".md-typeset pre, .md-typeset pre > code, .md-typeset__scrollwrap, .math--display")) {
    if (getComputedStyle(box).overflowX !== "visible" && (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight + 1)) {
      box.tabIndex = 0;
    }
  }
};
scrollers();
addEventListener("resize", scrollers);

// On paper everything is open, and dark on light.
const folded = new Set();
let scheme;
addEventListener("beforeprint", () => {
  scheme = document.body.getAttribute("data-md-color-scheme");
  document.body.setAttribute("data-md-color-scheme", "default");
  for (const box of document.querySelectorAll(".md-typeset details:not([open], .figure__numbers)")) {
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
