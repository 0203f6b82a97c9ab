// The way of a token as a drawing: down a staircase of bars, one for each hop, over the model's blocks.

import { blocks, svg } from "./dom.js";

const NAMES_W = 118; // px of the column of names
const RIGHT = 20;
const END_H = 26;
const BAR_H = 32;
const SPARE_H = 20;
const GAP = 26; // above a hop, where its link is
const SPARE_GAP = 6;
const INSET = 14; // of the way where it enters a bar
const CORNER = 7;
const MAX_SPARES = 4;
const MIN_CUT_W = 7; // narrower blocks aren't told apart
const COLOURS = 4;

export const STATES = {
  local: { mark: "local", tone: "good", text: "this node" },
  connected: { mark: "connected", tone: "good", text: "connected" },
  idle: { mark: "idle", tone: "soft", text: "not connected" },
  slow: { mark: "slow", tone: "warn", text: "slow" },
  busy: { mark: "busy", tone: "warn", text: "busy" },
  lost: { mark: "failed", tone: "bad", text: "lost" },
  down: { mark: "failed", tone: "bad", text: "down" },
  wrong: { mark: "failed", tone: "bad", text: "wrong answers" },
};

/** How a state looks and reads; one that isn't known is shown by its name. */
export const stateOf = (name) => STATES[name] ?? { mark: "idle", tone: "soft", text: name };

/** A class for the bars of the peer with that number. */
export const colourOf = (index) => `hop-${index % COLOURS}`;

/** A round trip as people read it. */
export const milliseconds = (value) => (value === null ? "–" : `${value.toLocaleString("en", { maximumSignificantDigits: 2 })} ms`);

export class Picture {
  #parent;
  #drawn = "";
  #links = [];
  #width = 0;
  #snapshot = null;

  constructor(parent) {
    this.#parent = parent;
    new ResizeObserver(() => {
      if (this.#snapshot) this.show(this.#snapshot);
    }).observe(parent);
  }

  /** Draw `snapshot`; what is as before isn't drawn anew, so that the flow doesn't jump. */
  show(snapshot) {
    this.#snapshot = snapshot;
    this.#width = Math.floor(this.#parent.clientWidth);
    if (!this.#width) return; // not shown now
    const hops = snapshot.hops.map(({ round_trip_ms: _, ...hop }) => hop);
    const peers = snapshot.peers.map(({ peer_id, label, spans, state }) => ({ peer_id, label, spans, state }));
    const drawn = JSON.stringify([this.#width, snapshot.model.n_blocks, hops, peers]);
    if (drawn !== this.#drawn) {
      this.#drawn = drawn;
      this.#parent.replaceChildren(this.#draw(snapshot));
    }
    snapshot.hops.forEach((hop, index) => {
      const text = hop.peer_id === null ? "" : milliseconds(hop.round_trip_ms);
      if (this.#links[index].textContent !== text) this.#links[index].textContent = text;
    });
    this.#parent.firstChild.setAttribute("aria-label", inWords(snapshot));
  }

  #draw({ hops, peers, model }) {
    const left = NAMES_W;
    const right = this.#width - RIGHT;
    const x = (block) => left + ((right - left - 12) * block) / model.n_blocks;
    const colours = new Map(peers.map((peer, index) => [peer.peer_id, index]));
    const under = [];
    const over = [];
    let y = 2;
    this.#links = [];

    over.push(label(0, y + END_H / 2, "this node", "name"));
    over.push(...end(left, y, hops[0]?.embed ? "ids" : "embed", "start"));
    over.push(...end(right + INSET, y, hops.at(-1)?.head ? "ids" : "head", "end"));
    const start = y + END_H;
    let way = `M ${left + INSET} ${start}`;
    let down = left + INSET;
    y = start;

    const shown = new Set();
    hops.forEach((hop, index) => {
      const barY = y + GAP;
      const middle = barY + BAR_H / 2;
      const [from, to] = [x(hop.start), x(hop.stop)];
      const next = index + 1 < hops.length ? to + Math.min(INSET, (x(hops[index + 1].stop) - to) / 2) : right;
      way += ` V ${middle} H ${next - CORNER} q ${CORNER} 0 ${CORNER} ${index + 1 < hops.length ? CORNER : -CORNER}`;
      const crowded = down + 60 > right;
      const link = svg("text", {
        class: "small", x: crowded ? down - 8 : down + 8, y: barY - 9, "text-anchor": crowded ? "end" : "start",
      });
      down = next;
      this.#links.push(link);
      over.push(link);
      under.push(...bar(hop, colours.get(hop.peer_id) ?? peers.length, from, to, barY, x));
      over.push(...who(hop.label, hop.state, middle, { more: endsOf(hop).join(", ") }));
      y = barY + BAR_H;
      const spares = sparesOf(hop, hops, peers).filter((peer) => !shown.has(peer.peer_id));
      spares.slice(0, MAX_SPARES).forEach((peer) => {
        shown.add(peer.peer_id);
        const spareY = y + SPARE_GAP;
        for (const [first, stop] of peer.free) {
          under.push(svg("rect", { class: stateOf(peer.state).tone === "bad" ? "spare failed" : "spare", x: x(first) + 1, y: spareY, width: Math.max(3, x(stop) - x(first) - 2), height: SPARE_H, rx: 6 }));
        }
        over.push(...who(peer.label, peer.state, spareY + SPARE_H / 2, { small: true }));
        y = spareY + SPARE_H;
      });
      if (spares.length > MAX_SPARES) {
        y += 18;
        over.push(label(18, y - 6, `and ${spares.length - MAX_SPARES} more`, "small"));
      }
    });
    way += ` V ${start}`;

    y += 18;
    over.push(...axis(model.n_blocks, x, y));
    return svg(
      "svg",
      { role: "img", width: this.#width, height: y + 8, viewBox: `0 0 ${this.#width} ${y + 8}` },
      svg("path", { class: "way", d: way }),
      ...under,
      svg("path", { class: "flow", d: way }),
      ...over,
    );
  }
}

/** The ends of the model that a hop has besides its blocks. */
const endsOf = (hop) => ["embed", "head"].filter((name) => hop[name]);

/** The swarm in one sentence for each hop. */
function inWords({ hops, model }) {
  const parts = hops.map((hop) => {
    const trip = hop.peer_id === null || hop.round_trip_ms === null ? "" : `, ${milliseconds(hop.round_trip_ms)} away`;
    const spare = hop.replicas.length ? `; ${hop.replicas.join(" or ")} could take over` : "";
    const ends = endsOf(hop).map((name) => ` and the ${name === "embed" ? "embedding" : name}`).join("");
    return `${hop.label} computes blocks ${blocks(hop.start, hop.stop)}${ends} (${stateOf(hop.state).text}${trip}${spare})`;
  });
  return `The way of a token through the ${model.n_blocks} blocks of ${model.name}: ${parts.join("; then ")}.`;
}

/** The peers that hold blocks of `hop` and don't compute them, each with those of its spans. */
function sparesOf(hop, hops, peers) {
  return peers
    .filter((peer) => peer.peer_id !== hop.peer_id && peer.spans.some(([start, stop]) => start < hop.stop && stop > hop.start))
    .map((peer) => {
      const own = hops.filter((other) => other.peer_id === peer.peer_id);
      return { ...peer, free: peer.spans.flatMap((span) => without(span, own)) };
    })
    .filter((peer) => peer.state !== "local" && peer.free.some(([start, stop]) => start < hop.stop && stop > hop.start));
}

/** The parts of a span that none of `hops` has. */
function without([start, stop], hops) {
  const parts = [];
  let at = start;
  for (const hop of hops) {
    if (hop.start >= stop || hop.stop <= at) continue;
    if (hop.start > at) parts.push([at, hop.start]);
    at = Math.max(at, hop.stop);
  }
  if (at < stop) parts.push([at, stop]);
  return parts;
}

function bar(hop, colour, from, to, y, x) {
  const { tone } = stateOf(hop.state);
  const health = tone === "bad" ? " failed" : tone === "warn" ? " hampered" : "";
  const parts = [
    svg("rect", { class: `bar ${colourOf(colour)}${health}`, x: from + 1, y, width: Math.max(3, to - from - 2), height: BAR_H, rx: 7 }),
  ];
  if (x(1) - x(0) >= MIN_CUT_W) {
    for (let block = hop.start + 1; block < hop.stop; block += 1) {
      parts.push(svg("line", { class: "cut", x1: x(block), x2: x(block), y1: y + 1.5, y2: y + BAR_H - 1.5 }));
    }
  }
  return parts;
}

/** A name with its mark in front, and how it is where there is room for a second line. */
function who(name, state, middle, { small = false, more = "" } = {}) {
  const { mark, tone, text } = stateOf(state);
  const group = svg(
    "g",
    { class: `state-${tone}` },
    svg("use", { class: "mark", href: `#state-${mark}`, x: 0, y: middle - (small ? 6 : 14), width: 12, height: 12 }),
  );
  const short = cut(name, small ? 13 : 12);
  if (small) return [group, label(18, middle, short, "small")];
  return [group, label(18, middle - 8, short, "name"), label(18, middle + 8, more ? `${text}, ${more}` : text, "small")];
}

function label(x, y, text, className) {
  return svg("text", { class: className, x, y, "dominant-baseline": "central" }, text);
}

/** Where the way begins or ends. */
function end(x, y, text, anchor) {
  const width = 54;
  const at = anchor === "start" ? x - 1 : x - width + 1;
  return [
    svg("rect", { class: "end", x: at, y, width, height: END_H, rx: 7 }),
    svg("text", { class: "small", x: at + width / 2, y: y + END_H / 2, "text-anchor": "middle", "dominant-baseline": "central" }, text),
  ];
}

/** Numbers of blocks where they begin, as many as there is room for. */
function axis(count, x, y) {
  const room = 12 + 7 * String(count).length;
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 50, 64, 100, 200, 500].find((blocksApart) => x(blocksApart) - x(0) >= room) ?? count;
  const found = [label(18, y - 4, "block", "small")];
  for (let block = 0; block < count; block += step) {
    const middle = step === 1 ? (x(block) + x(block + 1)) / 2 : x(block) + 4;
    found.push(svg("text", { class: "small", x: middle, y: y - 4, "text-anchor": "middle", "dominant-baseline": "central" }, String(block)));
  }
  return found;
}

const cut = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);
