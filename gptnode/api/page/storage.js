// What stays in this browser: nothing breaks where storage is forbidden or full.

const PREFIX = "gptnode.";

export function load(key, otherwise, where = "localStorage") {
  try {
    const text = globalThis[where].getItem(PREFIX + key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function save(key, value, where = "localStorage") {
  try {
    if (value === undefined) globalThis[where].removeItem(PREFIX + key);
    else globalThis[where].setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // It is kept until the page is closed, then.
  }
}
