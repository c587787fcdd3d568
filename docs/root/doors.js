// Open the door that the browser prefers. Nothing is stored: the switch on every page changes the language.
const doors = [...document.querySelectorAll("link[hreflang]")].map((link) => link.hreflang);
const wanted = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => doors.includes(tag));
if (wanted && location.hash !== "#doors") {
  location.replace(`${wanted}/`);
}
