// The room of the swarm: figures, picture, peers, events; and the model's name in the header.

import { blocks, byId, el, icon } from "./dom.js";
import { milliseconds, Picture, stateOf } from "./picture.js";
import { Spark } from "./spark.js";

const FLOWS_ON_MS = 600;

export class SwarmRoom {
  #picture = new Picture(byId("picture"));
  #spark = new Spark(byId("spark"));
  #lastEvent = null;
  #peers = "";
  #flowing = false;
  #still = null;
  #speed = 0;

  constructor(live) {
    live.watch((now) => this.#show(now));
    setInterval(() => this.#spark.add(this.#speed), 1000);
    addEventListener("hashchange", () => live.snapshot && this.#picture.show(live.snapshot));
  }

  /** A token came: the picture shows it for a moment. */
  pulse() {
    byId("picture").classList.add("flowing");
    clearTimeout(this.#still);
    this.#still = setTimeout(() => byId("picture").classList.toggle("flowing", this.#flowing), FLOWS_ON_MS);
  }

  #show({ snapshot, state }) {
    const pill = byId("link-state");
    const text = state === "live" ? "live" : "connection lost, trying again";
    if (pill.textContent !== text) pill.textContent = text;
    pill.className = `pill ${state}`;
    if (!snapshot) return;
    byId("model-name").textContent = snapshot.model.name;
    this.#figures(snapshot.load, state);
    this.#picture.show(snapshot);
    this.#flowing = state === "live" && snapshot.load.answering > 0 && snapshot.load.tokens_per_s > 0;
    if (this.#flowing) this.pulse();
    this.#table(snapshot.peers);
    this.#tell(snapshot.events);
  }

  #figures(load, state) {
    this.#speed = state === "live" ? load.tokens_per_s : 0;
    byId("figure-speed").textContent = this.#speed ? this.#speed.toLocaleString("en", { maximumFractionDigits: this.#speed < 100 ? 1 : 0 }) : "0";
    byId("figure-answering").textContent = load.waiting ? `${load.answering} +${load.waiting}` : load.answering;
    byId("figure-answering").title = `${load.answering} answering, ${load.waiting} waiting`;
    byId("figure-idle").textContent = load.idle;
    byId("figure-idle").title = "chats that are kept with their caches";
    byId("figure-answers").textContent = load.answers.toLocaleString("en");
    byId("figure-answers").title = `${load.completion_tokens.toLocaleString("en")} tokens so far`;
  }

  #table(peers) {
    const now = JSON.stringify(peers);
    if (now === this.#peers) return;
    this.#peers = now;
    const rows = peers.map((peer) => {
      const { mark, tone, text } = stateOf(peer.state);
      return el(
        "tr",
        { title: [peer.peer_id, ...peer.addrs].join("\n") },
        el("th", { scope: "row" }, peer.label),
        el("td", {}, peer.spans.map(([start, stop]) => blocks(start, stop)).join(", ") || "–"),
        el("td", {}, el("span", { class: `state state-${tone}` }, icon(`state-${mark}`, "state-mark"), text)),
        el("td", { class: "number" }, milliseconds(peer.round_trip_ms)),
      );
    });
    if (!rows.length) rows.push(el("tr", {}, el("td", { colspan: "4" }, "None: all blocks run on this node.")));
    byId("peers").replaceChildren(...rows);
  }

  #tell(events) {
    const last = events.at(-1)?.number ?? 0;
    if (last < (this.#lastEvent ?? 0)) {
      this.#lastEvent = null; // the node was started anew
      byId("events").replaceChildren();
    }
    for (const event of events.filter(({ number }) => number > (this.#lastEvent ?? 0))) {
      const time = new Date(event.at_s * 1000);
      const clock = time.toLocaleTimeString("en-GB");
      byId("events").prepend(el("li", {}, el("time", { datetime: time.toISOString() }, clock), el("span", {}, event.text)));
    }
    while (byId("events").children.length > 50) byId("events").lastChild.remove();
    this.#lastEvent = last;
    byId("no-events").hidden = byId("events").children.length > 0;
  }
}
