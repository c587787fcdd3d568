// Runs before Material's bundle. Search costs its reader nothing until the field is first used.
(() => {
  // Material would ask every alternate address for a sitemap of its own; the switch in the header needs none.
  for (const link of document.querySelectorAll("link[rel=alternate]")) {
    link.rel = "alternate language";
  }
  const waiting = [];
  let wanted = false;
  const whenWanted = (act) => (wanted ? act() : waiting.push(act));
  const release = () => {
    wanted = true;
    for (const act of waiting.splice(0)) {
      act();
    }
  };

  // The index.
  const { open, send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    this.isSearchIndex = String(url).endsWith("search/search_index.json");
    return open.call(this, method, url, ...rest);
  };
  XMLHttpRequest.prototype.send = function (body) {
    if (this.isSearchIndex) {
      whenWanted(() => send.call(this, body));
    } else {
      send.call(this, body);
    }
  };

  // The worker. What it has to say beside its results stands above Material's list.
  const tell = ({ nowhere, instead }) => {
    const line = document.querySelector(".md-search-result__nowhere");
    const said = (template, words) => words.reduce((text, word, i) => text.replace(`{${i}}`, word), template);
    const text = [...nowhere.map((word) => said(line.dataset.nowhere, [word])), ...instead.map((pair) => said(line.dataset.instead, pair))].join(" ");
    if (line.textContent !== text) {
      line.textContent = text; // spoken once
    }
    line.hidden = !text;
  };
  const Worker = window.Worker;
  window.Worker = class extends EventTarget {
    constructor(...where) {
      super();
      whenWanted(() => {
        this.worker = new Worker(...where);
        for (const kind of ["message", "error"]) {
          this.worker.addEventListener(kind, ({ data }) => {
            this.dispatchEvent(new MessageEvent(kind, { data }));
            if (data?.data?.nowhere) {
              tell(data.data);
            }
          });
        }
      });
    }
    postMessage(message) {
      whenWanted(() => this.worker.postMessage(message));
    }
    terminate() {
      whenWanted(() => this.worker.terminate());
    }
  };

  const field = document.querySelector("[data-md-component=search-query]");
  field?.addEventListener("focus", release, { once: true });
  // Material listens to keys; a pasted, dictated or suggested word comes without one.
  field?.addEventListener("input", () => field.dispatchEvent(new KeyboardEvent("keyup")));
  document.querySelector("#__search")?.addEventListener("change", release, { once: true });
  if (location.search.includes("q=")) {
    release(); // Material opens the search by itself
  }
})();
