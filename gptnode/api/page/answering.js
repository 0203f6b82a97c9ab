// One answer under way: the stream of the API as text, with the figures that a person wants to know.

import { ApiError, call } from "./api.js";
import { eventsOf } from "./events.js";

const SHORTEST_S = 0.02;

/** Asks, and calls `heard(text)` for each piece. Returns the figures; throws what went wrong. */
export async function ask({ model, messages, numbers, signal, heard }) {
  const began = performance.now();
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages, ...numbers, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const figures = { firstS: null, lastS: null, pieces: 0, tokens: null, end: null };
  for await (const { data } of eventsOf(response)) {
    if (data === "[DONE]") return figures;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(200, chunk.error.message, chunk, null);
    if (chunk.usage) figures.tokens = chunk.usage.completion_tokens;
    const choice = chunk.choices?.[0];
    figures.end = choice?.finish_reason ?? figures.end;
    const text = choice?.delta?.content;
    if (!text) continue;
    figures.lastS = (performance.now() - began) / 1000;
    figures.firstS ??= figures.lastS;
    figures.pieces += 1;
    heard(text, figures);
  }
  throw new Error("the connection ended before the answer did");
}

/** Tokens a second after the first one; null where they came at once and there is nothing to tell. */
export function speedOf({ tokens, pieces, firstS, lastS }) {
  const count = (tokens ?? pieces) - 1;
  return count > 0 && lastS - firstS > SHORTEST_S ? count / (lastS - firstS) : null;
}
