// The text of the map in its box: numbers of lines beside it, and the lines that are wrong.

import { byId, el } from "./dom.js";

export class MapText {
  #box = byId("map-text");
  #gutter = byId("gutter");
  #lines = 0;
  #wrong = new Set();
  #ending = "\n"; // of the file's lines; a text box knows one kind only

  /** `edited` is called after each edit by a person. */
  constructor(edited) {
    this.#box.addEventListener("input", () => {
      this.#number();
      edited();
    });
    this.#box.addEventListener("scroll", () => {
      this.#gutter.scrollTop = this.#box.scrollTop;
    });
  }

  /** As it stands in the box. */
  get text() {
    return this.#box.value;
  }

  /** As it goes into the file. */
  get fileText() {
    return this.#box.value.replaceAll("\n", this.#ending);
  }

  set text(text) {
    this.#ending = text.includes("\r\n") ? "\r\n" : "\n";
    this.#box.value = text;
    this.#number();
  }

  set readOnly(value) {
    this.#box.readOnly = value;
  }

  /** Show which lines are wrong. */
  mark(lines) {
    this.#wrong = new Set(lines);
    this.#box.setAttribute("aria-invalid", String(this.#wrong.size > 0));
    this.#lines = 0;
    this.#number();
  }

  /** Replace parts of the text, which undoing in the box takes back; the last part comes first. */
  swap(first, second) {
    const chars = [...this.text]; // places count characters, not halves of them
    const part = ({ start, stop }) => chars.slice(start, stop).join("");
    const edited = [
      chars.slice(0, first.start).join(""), part(second), chars.slice(first.stop, second.start).join(""), part(first),
      chars.slice(second.stop).join(""),
    ];
    this.#box.value = edited.join("");
    this.#number();
  }

  /** Put the caret where something is wrong. */
  goTo(line, column) {
    const lines = this.text.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0) + column - 1;
    const stop = Math.min(start + 1, this.text.length);
    this.#box.focus();
    this.#box.setSelectionRange(start, stop);
    this.#box.scrollTop = (line - 4) * parseFloat(getComputedStyle(this.#box).lineHeight);
  }

  #number() {
    const count = this.text.split("\n").length;
    if (count === this.#lines) return;
    this.#lines = count;
    const numbers = Array.from({ length: count }, (_, index) =>
      el("div", this.#wrong.has(index + 1) ? { class: "wrong" } : {}, String(index + 1)),
    );
    this.#gutter.replaceChildren(...numbers);
    this.#gutter.scrollTop = this.#box.scrollTop;
  }
}
