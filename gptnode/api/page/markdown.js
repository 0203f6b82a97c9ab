// A small part of Markdown as elements: code, lists, headings, bold, inline code. All else is text.

import { byId, el, icon } from "./dom.js";

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)\s*$/;
const BULLET = /^\s{0,3}[-*+]\s+(.*)$/;
const NUMBER = /^\s{0,3}(\d{1,9})[.)]\s+(.*)$/;
const HEADING = /^\s{0,3}#{1,6}\s+(.*?)\s*#*$/;
const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\*\*(\S(?:.*?\S)?)\*\*|__(\S(?:.*?\S)?)__/s;

/** The text as a list of blocks; each is written as `{kind, ...}` and compares by its JSON. */
export function blocksOf(text) {
  const found = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const last = found.at(-1);
    if (fence) {
      const code = [];
      const closing = new RegExp(`^\\s{0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      for (at += 1; at < lines.length && !closing.test(lines[at]); at += 1) code.push(lines[at]);
      found.push({ kind: "code", language: fence[2], text: code.join("\n") });
    } else if (!line.trim()) {
      if (last) last.ended = true;
    } else if (HEADING.test(line)) {
      found.push({ kind: "heading", text: HEADING.exec(line)[1], ended: true });
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      const kind = BULLET.test(line) ? "bullets" : "numbers";
      const [, first, second] = (kind === "bullets" ? BULLET : NUMBER).exec(line);
      if (last?.kind === kind) last.items.push(second ?? first);
      else found.push({ kind, items: [second ?? first], start: kind === "numbers" ? Number(first) : 1 });
      found.at(-1).ended = false;
    } else if (last?.items && !last.ended) {
      last.items.push(`${last.items.pop()}\n${line.trim()}`);
    } else if (last?.kind === "text" && !last.ended) {
      last.text += `\n${line}`;
    } else {
      found.push({ kind: "text", text: line });
    }
  }
  return found;
}

/** Makes `parent` show `text`; blocks that are as before stay, so that a selection survives. */
export function showMarkdown(parent, text) {
  const blocks = blocksOf(text);
  const before = parent.markdownBlocks ?? [];
  const now = blocks.map((block) => JSON.stringify(block));
  const kept = now.findIndex((block, index) => block !== before[index]);
  const same = kept === -1 ? now.length : kept;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  for (const block of blocks.slice(same)) parent.append(element(block));
  parent.markdownBlocks = now;
}

function element(block) {
  if (block.kind === "code") return codeBox(block);
  if (block.kind === "heading") return el("h4", {}, ...inline(block.text));
  if (block.items) {
    const items = block.items.map((item) => el("li", {}, ...inline(item)));
    return block.kind === "bullets" ? el("ul", {}, ...items) : el("ol", { start: block.start }, ...items);
  }
  return el("p", {}, ...inline(block.text));
}

function codeBox({ language, text }) {
  const copy = el("button", { type: "button", class: "quiet", "data-copy": text }, icon("icon-copy"), "Copy");
  copy.setAttribute("aria-label", "Copy this code");
  return el(
    "div",
    { class: "code" },
    el("div", { class: "code-bar" }, el("span", {}, language || "code"), copy),
    el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, el("code", {}, text)),
  );
}

/** Text with bold and code in it, as nodes. */
function inline(text, depth = 0) {
  const nodes = [];
  let rest = text;
  for (let match = INLINE.exec(rest); match; match = INLINE.exec(rest)) {
    if (match.index) nodes.push(...lines(rest.slice(0, match.index)));
    const bold = match[3] ?? match[4];
    if (match[2] !== undefined) nodes.push(el("code", {}, match[2].trim() || match[2]));
    else nodes.push(el("strong", {}, ...(depth < 3 ? inline(bold, depth + 1) : [bold])));
    rest = rest.slice(match.index + match[0].length);
  }
  if (rest) nodes.push(...lines(rest));
  return nodes;
}

/** Text in which each line break is one. */
function lines(text) {
  return text.split("\n").flatMap((line, index) => (index ? [el("br"), line] : [line]));
}

/** One listener for all copy buttons below `root`. */
export function copyOnClick(root) {
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    let told = "Copied";
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      told = "Not allowed";
    }
    const label = button.lastChild;
    const before = label.textContent;
    if (before !== "Copy") return;
    label.textContent = told;
    byId("spoken").textContent = told;
    setTimeout(() => {
      label.textContent = before;
    }, 1500);
  });
}
