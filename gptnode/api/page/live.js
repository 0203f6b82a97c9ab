// The swarm as it is now: one stream of snapshots for all who look, taken up again when it breaks.

import { call } from "./api.js";
import { eventsOf } from "./events.js";

const SHORTEST_S = 1;
const LONGEST_S = 10;
const SILENCE_S = 40; // the node is never silent for longer than 15 s

export class Live {
  #viewers = new Set();
  snapshot = null;
  state = "connecting";

  /** `viewer` is called with this object now and after each change. */
  watch(viewer) {
    this.#viewers.add(viewer);
    if (this.snapshot) viewer(this);
    return () => this.#viewers.delete(viewer);
  }

  async run() {
    let pause = SHORTEST_S;
    for (;;) {
      const silence = new AbortController();
      let timer = null;
      try {
        const response = await call("api/swarm/events", { signal: silence.signal, unasked: true });
        const heard = () => {
          clearTimeout(timer);
          timer = setTimeout(() => silence.abort(), SILENCE_S * 1000);
        };
        heard();
        for await (const { type, data } of eventsOf(response)) {
          heard();
          if (type !== "swarm") continue;
          pause = SHORTEST_S;
          this.snapshot = JSON.parse(data);
          this.#tell("live");
        }
      } catch (error) {
        if (error.status === 401) pause = LONGEST_S;
      } finally {
        clearTimeout(timer);
      }
      this.#tell("lost");
      await new Promise((done) => setTimeout(done, pause * 1000));
      pause = Math.min(LONGEST_S, pause * 1.6);
    }
  }

  #tell(state) {
    this.state = state;
    for (const viewer of this.#viewers) viewer(this);
  }
}
