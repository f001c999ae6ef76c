// Server-sent events of a fetch: EventSource can send neither a form nor a key.

/** Messages {id, data} as they come; id is 0 where there is none. onBytes: called for whatever comes. */
export async function* messages(response, onBytes = () => {}) {
  let id = 0;
  let data = [];
  for await (const line of lines(response.body, onBytes)) {
    if (line === "") {
      if (data.length) yield { id, data: data.join("\n") };
      data = [];
      continue;
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line);
    if (field === "data") data.push(value);
    if (field === "id" && /^\d+$/.test(value)) id = Number(value);
  }
}

/** What stands behind the last end of a line is dropped: half an event is none. */
async function* lines(body, onBytes) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      // A \r at the end may be the first half of \r\n.
      const whole = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = whole.pop();
      yield* whole;
    }
  } finally {
    reader.cancel().catch(() => {}); // its connection may be gone already
  }
}
