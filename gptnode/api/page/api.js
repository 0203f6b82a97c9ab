// Requests to the node that served this page. Where it wants a token, a person is asked once.

import { byId } from "./dom.js";
import { load, save } from "./storage.js";

let token = load("token", "", "sessionStorage");
let asking = null;
let declined = false;

/** An answer that is no success; `body` is what the node said, if it said JSON. */
export class ApiError extends Error {
  constructor(status, message, body, retryAfterS) {
    super(message);
    this.status = status;
    this.body = body;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * The response to a request that worked; throws `ApiError`, or what fetch throws.
 * `unasked`: no person wants this now, so one who has declined to give a token isn't asked again.
 */
export async function call(path, { headers = {}, unasked = false, ...rest } = {}) {
  for (;;) {
    const used = token;
    const bearer = used ? { authorization: `Bearer ${used}` } : {};
    const response = await fetch(path, { cache: "no-store", ...rest, headers: { ...headers, ...bearer } });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || (unasked && declined && token === used)) throw error;
    if (token === used && !(await askForToken(Boolean(used)))) throw error;
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `the node answered ${response.status}`;
  const wait = Number(response.headers.get("retry-after"));
  return new ApiError(response.status, message, body, Number.isFinite(wait) && wait > 0 ? wait : null);
}

/** Whether there is one now. Several requests that need one wait for the same answer. */
function askForToken(wasWrong) {
  asking ??= new Promise((done) => {
    const dialog = byId("token-dialog");
    const input = byId("token-input");
    byId("token-hint").textContent = wasWrong
      ? "That token is not the right one. It was set where gptnode api was started."
      : "It was set where gptnode api was started. It is kept until this tab is closed.";
    input.value = "";
    const given = (event) => {
      event.preventDefault();
      token = input.value.trim();
      save("token", token || undefined, "sessionStorage");
      dialog.close("given");
    };
    byId("token-form").addEventListener("submit", given);
    dialog.addEventListener(
      "close",
      () => {
        byId("token-form").removeEventListener("submit", given);
        asking = null;
        declined = dialog.returnValue !== "given";
        done(!declined);
      },
      { once: true },
    );
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

byId("token-cancel").addEventListener("click", () => byId("token-dialog").close("cancelled"));
