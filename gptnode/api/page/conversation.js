// The turns so far. In memory and, where a person wants it, in this browser.

import { load, save } from "./storage.js";

export class Conversation {
  turns = load("turns", []);

  /** The messages for the API, up to and without the turn at `stop`. */
  messages(system, stop = this.turns.length) {
    const said = this.turns
      .slice(0, stop)
      .filter(({ role, text }) => role === "user" || text)
      .map(({ role, text }) => ({ role, content: text }));
    return system ? [{ role: "system", content: system }, ...said] : said;
  }

  add(turn) {
    this.turns.push(turn);
    return turn;
  }

  dropLast() {
    return this.turns.pop();
  }

  clear() {
    this.turns = [];
  }

  keep(wanted) {
    save("turns", wanted && this.turns.length ? this.turns : undefined);
  }
}
