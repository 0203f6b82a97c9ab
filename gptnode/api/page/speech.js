// What a screen reader is told while an answer streams: whole sentences, and not too often.

const PAUSE_MS = 2500;
const SENTENCE_END = /[.!?:…][)"'”’]*\s|\n/g;

export class Speech {
  #region;
  #waiting = "";
  #timer = null;

  constructor(region) {
    this.#region = region;
  }

  /** More of the answer. */
  add(text) {
    this.#waiting += text;
    this.#timer ??= setTimeout(() => this.#speak(), PAUSE_MS);
  }

  /** The answer is over; `last` is said after what is left of it. */
  end(last) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#say(`${this.#waiting} ${last}`);
    this.#waiting = "";
  }

  #speak() {
    this.#timer = null;
    const ends = [...this.#waiting.matchAll(SENTENCE_END)];
    if (!ends.length) {
      this.#timer = setTimeout(() => this.#speak(), PAUSE_MS);
      return;
    }
    const stop = ends.at(-1).index + ends.at(-1)[0].length;
    this.#say(this.#waiting.slice(0, stop));
    this.#waiting = this.#waiting.slice(stop);
  }

  #say(text) {
    this.#region.textContent = text.replace(/[`*#_]+/g, "").trim();
  }
}
