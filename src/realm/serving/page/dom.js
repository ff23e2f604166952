// Elements made in code. What a server says goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // The policy of the page forbids style attributes; custom properties are set one by one.
    else if (name.startsWith("--")) element.style.setProperty(name, String(value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an HTML element; a child is a node or a text, null is none. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Return an SVG element. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Return the element of an id that the page has. */
export function byId(id) {
  return document.getElementById(id);
}

/** Tell a screen reader, also when it is told the same twice. */
export function say(id, text) {
  const place = byId(id);
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = text;
  });
}

/** Return a box that says what went wrong, and what to do. */
export function errorNotice(error, title = "That did not work") {
  return el(
    "div",
    { class: "notice alarm", role: "alert" },
    el("p", { class: "notice-title" }, title),
    el("p", {}, error.message),
    error.code ? el("p", { class: "code" }, error.code) : null,
  );
}

/** Return a calm box for a state that is not an error. */
export function notice(title, ...children) {
  return el("div", { class: "notice" }, el("p", { class: "notice-title" }, title), ...children);
}
