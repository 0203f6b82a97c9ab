// The room of the map: look it over, see what an edit would change, apply it, take it back.

import { call } from "./api.js";
import { blocks, byId, counted, el, icon } from "./dom.js";
import { MapText } from "./map-text.js";
import { colourOf } from "./picture.js";

const PAUSE_MS = 450;
const MAX_UNDO = 20;

export class MapRoom {
  #text = new MapText(() => this.#edited());
  #tag = null;
  #saved = "";
  #before = []; // texts that were replaced, the latest one last
  #editable = true;
  #version = null;
  #timer = null;
  #asked = 0;

  constructor(live, offered) {
    byId("map-check").addEventListener("click", () => this.#check(true));
    byId("map-apply").addEventListener("click", () => this.#apply(this.#text.fileText));
    byId("map-undo").addEventListener("click", () => this.#undo());
    byId("map-reload").addEventListener("click", () => this.#read(true));
    byId("orders").addEventListener("click", (event) => this.#move(event.target.closest("button")));
    live.watch(({ snapshot }) => this.#follow(snapshot.map, offered));
  }

  get #dirty() {
    return this.#text.text !== this.#saved;
  }

  /** Another version is in force: show it, unless somebody writes here. */
  #follow(map, offered) {
    if (map === null || map.version === this.#version) return;
    const first = this.#version === null;
    this.#version = map.version;
    if (first) {
      byId("map-link").hidden = false;
      byId("map-file").textContent = map.editable ? map.name : `${map.name} · read only`;
      this.#editable = map.editable;
      this.#text.readOnly = !map.editable;
      for (const id of ["map-apply", "map-undo"]) byId(id).hidden = !map.editable;
      offered();
    }
    if (!this.#dirty || first) this.#read(false);
    else if (map.version > 1) this.#notice("The map was changed elsewhere meanwhile. Read it again before you apply your edit.");
  }

  async #read(asked) {
    await this.#guarded(async () => {
      const body = await (await call("api/map")).json();
      if (asked || !this.#dirty || this.#tag === null) this.#take(body.text, body.tag);
      this.#show(body);
      this.#notice(null);
      if (asked) this.#state(`Read ${body.name} again.`, "soft");
    });
  }

  #take(text, tag) {
    this.#text.text = text;
    this.#saved = this.#text.text;
    this.#tag = tag;
  }

  #edited() {
    clearTimeout(this.#timer);
    this.#state("", "soft");
    this.#timer = setTimeout(() => this.#check(false), PAUSE_MS);
  }

  async #check(asked) {
    clearTimeout(this.#timer);
    const number = (this.#asked += 1);
    await this.#guarded(async () => {
      const body = await (await post("api/map/check", this.#text.text)).json();
      if (number !== this.#asked) return; // it was edited since
      this.#show(body);
      if (asked && body.ok) this.#state(this.#dirty ? "It is right." : "It is right, and in force.", "good");
    });
  }

  async #apply(text) {
    clearTimeout(this.#timer);
    this.#asked += 1;
    await this.#guarded(async () => {
      const before = this.#saved;
      const response = await call("api/map", {
        method: "PUT",
        headers: { "content-type": "application/json", "if-match": `"${this.#tag}"` },
        body: text,
      });
      const body = await response.json();
      if (this.#text.text !== before) this.#before.push(before);
      this.#before = this.#before.slice(-MAX_UNDO);
      this.#take(text, body.tag);
      this.#show(body);
      this.#notice(null);
      this.#state("Applied. The next token takes the new route.", "good");
    });
  }

  async #undo() {
    const last = this.#before.pop();
    if (last === undefined) return;
    const count = this.#before.length;
    this.#text.text = last;
    await this.#apply(this.#text.fileText);
    this.#before.length = Math.min(this.#before.length, count);
    if (this.#dirty) this.#before.push(last); // it was refused
    else this.#state("The last version is back in force.", "good");
    byId("map-undo").disabled = !this.#before.length;
  }

  /** Asks the node; what it refuses is shown where it belongs. */
  async #guarded(asking) {
    try {
      await asking();
    } catch (error) {
      if (error.status === 422 && error.body?.problems) this.#show(error.body);
      else if (error.status === 412) this.#notice("The map was changed elsewhere meanwhile. Read it again before you apply your edit.");
      else this.#state(error instanceof TypeError ? "The node can't be reached." : error.message, "bad");
    }
  }

  #show({ problems, before, after, changes, orders }) {
    this.#text.mark(problems.map(({ line }) => line).filter(Boolean));
    byId("problems").replaceChildren(...problems.map((problem) => this.#problem(problem)));
    if (problems.length) this.#state(`${counted(problems.length, "problem")}; nothing is applied.`, "bad");
    else if (byId("map-state").dataset.tone === "bad") this.#state("", "soft");
    const edited = this.#dirty && !problems.length;
    byId("preview").hidden = !edited;
    const colours = [...new Set([...before, ...after].map(({ label }) => label))];
    byId("before").replaceChildren(...strip(before, colours));
    byId("after").replaceChildren(...strip(after, colours));
    const same = JSON.stringify(before.map(bare)) === JSON.stringify(after.map(bare));
    const lines = [...(same ? ["The route stays as it is."] : []), ...changes];
    byId("changes").replaceChildren(...lines.map((line) => el("li", {}, line)));
    if (!problems.length) this.#orders(orders);
    byId("map-apply").disabled = !this.#dirty || problems.length > 0;
    byId("map-undo").disabled = !this.#before.length;
  }

  #problem({ path, line, column, message }) {
    const where = [line ? `line ${line}` : null, path || null].filter(Boolean).join(", ");
    const button = el("button", { type: "button" }, el("span", {}, where ? el("b", {}, where) : null, where ? ": " : null, message));
    button.addEventListener("click", () => this.#text.goTo(line ?? 1, column ?? 1));
    return el("li", {}, button);
  }

  #orders(orders) {
    const several = orders.filter(({ peers }) => peers.length > 1);
    byId("orders-title").hidden = !several.length;
    byId("orders").replaceChildren(
      ...several.map(({ blocks: span, model, peers }, route) => {
        const rows = peers.map((peer, index) => {
          const key = (direction, other) =>
            el(
              "button",
              {
                type: "button", class: "quiet square", disabled: !other || !this.#editable,
                "aria-label": `Move ${peer.label} ${direction}, blocks ${span}`, title: `Move ${direction}`,
                "data-key": `${route}.${peer.label}.${direction}`,
                "data-swap": other ? JSON.stringify(direction === "up" ? [other, peer] : [peer, other]) : null,
              },
              icon(`icon-${direction}`),
            );
          return el(
            "li", {}, el("span", { class: "rank" }, `${index + 1}.`), el("span", { class: "who" }, peer.label),
            key("up", peers[index - 1]), key("down", peers[index + 1]),
          );
        });
        const label = `Blocks ${span} of ${model}`;
        return el("li", { class: "order" }, el("h4", {}, label), el("ol", { "aria-label": label }, ...rows));
      }),
    );
  }

  /** Swap two peers of a list where they are written, and look at what comes of it. */
  async #move(button) {
    if (!button?.dataset.swap) return;
    const key = button.dataset.key;
    const [first, second] = JSON.parse(button.dataset.swap);
    this.#text.swap(first, second);
    for (const each of byId("orders").querySelectorAll("button")) each.removeAttribute("data-swap"); // their places are old
    await this.#check(false);
    const keys = [...byId("orders").querySelectorAll("button:not(:disabled)")];
    const [route, label] = key.split(".");
    (keys.find((each) => each.dataset.key === key) ?? keys.find((each) => each.dataset.key.startsWith(`${route}.${label}.`)))?.focus();
    this.#state("Moved. Apply to put it in force.", "soft");
  }

  #state(text, tone) {
    const line = byId("map-state");
    line.textContent = text;
    line.className = `map-state state-${tone}`;
    line.dataset.tone = tone;
  }

  #notice(text) {
    byId("map-notice").hidden = !text;
    byId("map-notice").textContent = text ?? "";
  }
}

const post = (path, body) => call(path, { method: "POST", headers: { "content-type": "application/json" }, body });

const bare = ({ label, start, stop }) => ({ label, start, stop });

/** A route as a row of parts, each as wide as it has blocks. */
function strip(hops, colours) {
  return hops.map((hop) => {
    const part = el("li", { class: colourOf(colours.indexOf(hop.label)), title: `${hop.label}, blocks ${blocks(hop.start, hop.stop)}` }, `${hop.label} ${blocks(hop.start, hop.stop)}`);
    part.style.flexGrow = String(hop.stop - hop.start);
    return part;
  });
}
