// The button that goes round: as the system, light, dark. `first-paint.js` applies it before paint.

import { byId } from "./dom.js";

const NAMES = { "": "as the system", light: "light", dark: "dark" };
const ORDER = ["", "light", "dark"];

export function themeButton() {
  const root = document.documentElement;
  const button = byId("theme");
  const label = () => {
    const text = `Theme: ${NAMES[root.dataset.theme ?? ""]}`;
    button.setAttribute("aria-label", text);
    button.title = text;
  };
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(root.dataset.theme ?? "") + 1) % ORDER.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    try {
      if (next) localStorage.setItem("gptnode.theme", next);
      else localStorage.removeItem("gptnode.theme");
    } catch {
      // It holds until the page is closed, then.
    }
    label();
  });
  label();
}
