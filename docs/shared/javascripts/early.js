// Runs before Material's bundle.
(() => {
  // Material would ask every alternate address for a sitemap of its own; the switch in the header needs none.
  for (const link of document.querySelectorAll("link[rel=alternate]")) {
    link.rel = "alternate language";
  }
  // The search index is fetched when the search field is first used, not before.
  const { open, send } = XMLHttpRequest.prototype;
  const held = [];
  let wanted = false;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    this.isSearchIndex = String(url).endsWith("search/search_index.json");
    return open.call(this, method, url, ...rest);
  };
  XMLHttpRequest.prototype.send = function (body) {
    if (this.isSearchIndex && !wanted) {
      held.push(this);
    } else {
      send.call(this, body);
    }
  };
  const release = () => {
    wanted = true;
    for (const request of held.splice(0)) {
      send.call(request);
    }
  };
  document.querySelector("[data-md-component=search-query]")?.addEventListener("focus", release, { once: true });
  document.querySelector("#__search")?.addEventListener("change", release, { once: true });
})();
