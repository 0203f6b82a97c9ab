// The room of the chat: turns, the box below them, and an answer while it streams.

import { ask, speedOf } from "./answering.js";
import { Conversation } from "./conversation.js";
import { byId, counted, el, icon } from "./dom.js";
import { copyOnClick, showMarkdown } from "./markdown.js";
import { Settings } from "./settings.js";
import { Speech } from "./speech.js";

const NEAR_END_PX = 80;
const ENDS = { length: "ended by the token limit", stopped: "stopped by you", content_filter: "filtered" };

export class ChatRoom {
  #live;
  #pulse;
  #conversation = new Conversation();
  #settings = new Settings(() => this.#conversation.keep(this.#settings.keep));
  #speech = new Speech(byId("spoken"));
  #turns = byId("turns");
  #message = byId("message");
  #stopping = null;

  /** `pulse` is called with each piece of an answer. */
  constructor(live, pulse) {
    this.#live = live;
    this.#pulse = pulse;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(this.#message.value);
    });
    this.#message.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send(this.#message.value);
    });
    this.#message.addEventListener("input", () => this.#fit());
    byId("stop").addEventListener("click", () => this.stop());
    byId("new-chat").addEventListener("click", () => this.#clear());
    byId("starters").addEventListener("click", (event) => {
      if (event.target.matches("button")) this.#send(event.target.textContent);
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.stop();
    });
    copyOnClick(this.#turns);
    this.#drawAll();
  }

  /** End the answer under way; what was said stays. */
  stop() {
    this.#stopping?.abort();
  }

  async #send(text) {
    if (this.#stopping || !text.trim()) return;
    this.#message.value = "";
    this.#fit();
    byId("welcome").hidden = true;
    this.#turns.append(drawQuestion(this.#conversation.add({ role: "user", text: text.trim() })));
    this.#scroll(true);
    await this.#answer();
  }

  async #retry() {
    if (this.#stopping) return;
    if (this.#conversation.turns.at(-1)?.role === "assistant") this.#conversation.dropLast();
    this.#turns.lastElementChild.remove();
    this.#message.focus(); // the button that was pressed is gone
    await this.#answer();
  }

  async #answer() {
    const turn = { role: "assistant", text: "", facts: [] };
    const view = drawAnswer();
    for (const old of this.#turns.querySelectorAll(".retry")) old.remove();
    this.#turns.append(view.article);
    this.#busy(new AbortController());
    this.#scroll(true);
    const ways = new Set();
    let drawing = 0;
    let figures = null;
    const unwatch = this.#live.watch(({ snapshot }) => figures && ways.add(wayOf(snapshot)));
    const draw = () => {
      drawing = 0;
      const follow = this.#atEnd();
      showMarkdown(view.said, turn.text);
      view.facts.replaceChildren(...factLine(live(figures)));
      if (follow) this.#scroll(true);
    };
    try {
      figures = await ask({
        model: this.#live.snapshot?.model.name ?? "default",
        messages: this.#conversation.messages(this.#settings.system),
        numbers: this.#settings.numbers,
        signal: this.#stopping.signal,
        heard: (piece, soFar) => {
          turn.text += piece;
          figures = soFar;
          if (!ways.size && this.#live.snapshot) ways.add(wayOf(this.#live.snapshot));
          this.#pulse();
          this.#speech.add(piece);
          drawing ||= requestAnimationFrame(draw);
        },
      });
      turn.facts = facts(figures, ways);
    } catch (error) {
      const stopped = error.name === "AbortError";
      turn.facts = figures ? facts({ ...figures, end: stopped ? "stopped" : null }, ways) : [];
      if (stopped && !figures) turn.facts = [ENDS.stopped];
      if (!stopped) turn.error = inWords(error);
    }
    unwatch();
    cancelAnimationFrame(drawing);
    const follow = this.#atEnd();
    this.#finish(view, turn);
    this.#conversation.add(turn);
    this.#conversation.keep(this.#settings.keep);
    this.#speech.end(turn.error ?? "End of the answer.");
    this.#busy(null);
    if (follow) this.#scroll(true);
  }

  /** The answer as it stays: text, facts, keys. */
  #finish(view, turn) {
    view.article.setAttribute("aria-busy", "false");
    showMarkdown(view.said, turn.text);
    if (turn.error) view.said.append(el("p", { class: "failed" }, turn.error));
    const retry = el("button", { type: "button", class: "quiet retry" }, icon("icon-retry"), "Retry");
    retry.addEventListener("click", () => this.#retry());
    const copy = el("button", { type: "button", class: "quiet", "aria-label": "Copy the answer", "data-copy": turn.text }, icon("icon-copy"), "Copy");
    view.facts.replaceChildren(...factLine(turn.facts), el("span", { class: "keys" }, turn.text ? copy : null, retry));
  }

  #clear() {
    this.stop();
    this.#conversation.clear();
    this.#conversation.keep(this.#settings.keep);
    this.#drawAll();
    byId("spoken").textContent = "A new chat.";
    this.#message.focus();
  }

  #drawAll() {
    for (const turn of [...this.#turns.querySelectorAll(".turn")]) turn.remove();
    for (const turn of this.#conversation.turns) {
      if (turn.role === "user") {
        this.#turns.append(drawQuestion(turn));
        continue;
      }
      const view = drawAnswer();
      this.#turns.append(view.article);
      this.#finish(view, turn);
    }
    for (const old of [...this.#turns.querySelectorAll(".retry")].slice(0, -1)) old.remove();
    byId("welcome").hidden = this.#conversation.turns.length > 0;
    this.#scroll(true);
  }

  #busy(stopping) {
    const hadFocus = [byId("send"), byId("stop")].includes(document.activeElement);
    this.#stopping = stopping;
    byId("send").hidden = Boolean(stopping);
    byId("stop").hidden = !stopping;
    if (hadFocus) (stopping ? byId("stop") : this.#message).focus();
  }

  #atEnd() {
    return this.#turns.scrollHeight - this.#turns.scrollTop - this.#turns.clientHeight < NEAR_END_PX;
  }

  #scroll(toEnd) {
    if (toEnd) this.#turns.scrollTop = this.#turns.scrollHeight;
  }

  /** The box is as high as its text, up to a limit. */
  #fit() {
    this.#message.style.height = "auto";
    this.#message.style.height = `${this.#message.scrollHeight}px`;
  }
}

function drawQuestion({ text }) {
  return el("article", { class: "turn user", "aria-label": "You" }, el("div", { class: "said" }, text));
}

function drawAnswer() {
  const dots = el("span", { class: "thinking", role: "img", "aria-label": "Reading the prompt" }, el("i"), el("i"), el("i"));
  const said = el("div", { class: "said" }, dots);
  const facts = el("div", { class: "facts" });
  return { article: el("article", { class: "turn answer", "aria-label": "Answer", "aria-busy": "true" }, said, facts), said, facts };
}

/** Who computed, as `anna → ben`. */
function wayOf(snapshot) {
  return snapshot.hops.map((hop) => hop.label).join(" → ");
}

function live(figures) {
  const speed = figures && speedOf(figures);
  return speed ? [`${speed.toFixed(1)} tokens/s`] : [];
}

function facts(figures, ways) {
  const speed = speedOf(figures);
  return [
    speed ? `${speed.toFixed(1)} tokens/s` : null,
    figures.firstS === null ? null : `first after ${figures.firstS.toFixed(2)} s`,
    figures.tokens === null ? null : counted(figures.tokens, "token"),
    ways.size ? [...ways].join(", then ") : null,
    ENDS[figures.end] ?? null,
  ].filter(Boolean);
}

const factLine = (texts) => texts.map((text) => el("span", { class: "fact" }, text));

/** What went wrong, and what a person can do. */
function inWords(error) {
  if (error.retryAfterS) return `${error.message}. Try again in ${counted(Math.ceil(error.retryAfterS), "second")}.`;
  if (error instanceof TypeError) return "The node can't be reached. Is it still running?";
  return error.message;
}
