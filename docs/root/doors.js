// Open the door that the browser prefers. Nothing is stored: the switch on every page changes the language.
const wanted = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag === "ja" || tag === "en");
if (wanted && location.hash !== "#doors") {
  location.replace(`${wanted}/`);
}
