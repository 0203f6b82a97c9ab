// Server-sent events out of a response. EventSource can't send a token, fetch can.

/** Each event as `{type, data}`; ends with the body. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let type = "message";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A line break that a carriage return begins may be cut in two.
      const whole = rest.endsWith("\r") ? rest.length - 1 : rest.length;
      const lines = rest.slice(0, whole).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(whole);
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { type, data: data.join("\n") };
          type = "message";
          data = [];
          continue;
        }
        const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (name === "data") data.push(value);
        else if (name === "event") type = value;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
