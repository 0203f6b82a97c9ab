// Which room is shown: the part of the address after `#`, so that going back works.

import { byId } from "./dom.js";

const VIEWS = ["chat", "swarm", "map"];

export function followAddress() {
  const links = [...document.querySelectorAll("[data-to]")];
  const wide = matchMedia("(min-width: 62rem)");
  const show = (event) => {
    const asked = location.hash.slice(1);
    const view = VIEWS.includes(asked) && !(asked === "map" && byId("map-link").hidden) ? asked : "chat";
    document.body.dataset.view = view;
    const current = wide.matches && view === "chat" ? "swarm" : view;
    for (const link of links) {
      if (link.dataset.to === current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (event?.type !== "hashchange") return;
    const target = asked === "message" ? asked : view; // the skip link leads into the chat
    byId(target).focus({ preventScroll: true });
  };
  addEventListener("hashchange", show);
  wide.addEventListener("change", show);
  show();
  return show;
}
