// The drawer: what is sent with each question. An empty field leaves it to the node.

import { byId } from "./dom.js";
import { load, save } from "./storage.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];

export class Settings {
  #form = byId("settings-form");
  #dialog = byId("settings");
  #changed;

  /** `changed` is called after each change. */
  constructor(changed = () => {}) {
    this.#changed = changed;
    const kept = load("settings", {});
    for (const name of ["system", ...NUMBERS]) this.#field(name).value = kept[name] ?? "";
    this.#field("keep").checked = Boolean(kept.keep);
    byId("open-settings").addEventListener("click", () => this.#dialog.showModal());
    byId("close-settings").addEventListener("click", () => this.#dialog.close());
    byId("reset-settings").addEventListener("click", () => {
      this.#form.reset();
      this.#keep();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#dialog.close();
    });
    this.#form.addEventListener("change", () => this.#keep());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside the drawer
    });
  }

  get system() {
    return this.#field("system").value.trim();
  }

  /** Whether the chat stays in this browser. */
  get keep() {
    return this.#field("keep").checked;
  }

  /** The numbers that were set, by the names of the API. */
  get numbers() {
    const set = NUMBERS.map((name) => [name, this.#field(name)]);
    return Object.fromEntries(
      set.filter(([, field]) => field.value !== "" && field.validity.valid).map(([name, field]) => [name, field.valueAsNumber]),
    );
  }

  #field(name) {
    return this.#form.elements.namedItem(name);
  }

  #keep() {
    save("settings", this.keep ? { system: this.system, ...this.numbers, keep: true } : undefined);
    this.#changed();
  }
}
