// Making elements out of text, never out of markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with that id; it is in index.html. */
export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; children are nodes or text. */
export const el = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** One of the symbols in index.html; what it means is said beside it. */
export const icon = (id, className = "icon") =>
  svg("svg", { class: className, "aria-hidden": "true" }, svg("use", { href: `#${id}` }));

/** `1 token`, `2 tokens`. */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** A half-open range of blocks as people write it: `0–3`, or `7`. */
export const blocks = (start, stop) => (stop - start === 1 ? `${start}` : `${start}–${stop - 1}`);
