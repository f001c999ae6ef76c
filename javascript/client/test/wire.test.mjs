// Against servers that misbehave: what the service would have to be broken for.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { PromptglassClient, PromptglassError } from "../promptglass.mjs";

/** A server that answers each request by the next script, the last one again and again. */
async function scripted(t, ...scripts) {
  const asked = [];
  const server = createServer((request, response) => {
    request.resume();
    asked.push(request);
    scripts[Math.min(asked.length, scripts.length) - 1](response, request);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { asked, client: new PromptglassClient(`http://127.0.0.1:${server.address().port}/`) };
}

const says = (status, body, type = "application/json") => (response) => {
  response.writeHead(status, { "Content-Type": type });
  response.end(body);
};

/** In pieces that end anywhere, within a character as well. */
const tells = (text, end = "end") => async (response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  const bytes = Buffer.from(text);
  for (let start = 0; start < bytes.length; start += 5) {
    response.write(bytes.subarray(start, start + 5));
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (end === "end") response.end();
  if (end === "break") response.destroy();
};

const drops = (response) => response.destroy();

async function all(events) {
  const heard = [];
  for await (const event of events) heard.push(event);
  return heard;
}

const PLANNED = 'id: 1\ndata: {"kind": "planned"}\n\n';
const END = 'id: 9\r\ndata: {"kind": "end",\r\ndata: "state": "done"}\r\n\r\n';

test("events are told once over broken connections", async (t) => {
  const { asked, client } = await scripted(
    t,
    tells(`\ufeff: hello\n\n${PLANNED}id: 2\ndata: {"kind": "outcome", "path": "é🐈.png"}\n\nid: 3\ndata: {"ki`, "break"),
    says(503, "<html>"),
    drops,
    tells(`id: 3\rdata: {"kind": "outcome"}\r\r${END}`),
  );
  const heard = await all(client.batches.events("a b"));
  assert.deepEqual(heard.map((event) => event.kind), ["planned", "outcome", "outcome", "end"]);
  assert.equal(heard[1].path, "é🐈.png");
  assert.equal(heard[3].state, "done");
  assert.deepEqual(asked.map((request) => request.headers["last-event-id"]), [undefined, "2", "2", "2"]);
  assert.equal(asked[0].url, "/promptglass/v1/batches/a%20b/events");
});

test("where all was told, nothing is asked again", async (t) => {
  const { asked, client } = await scripted(t, tells(PLANNED), says(204));
  assert.equal((await all(client.batches.events("x"))).length, 1);
  assert.equal(asked.length, 2);
});

test("an event that is no JSON ends it", async (t) => {
  const { asked, client } = await scripted(t, tells("id: 1\ndata: {\n\n"));
  await assert.rejects(all(client.batches.events("x")), PromptglassError);
  assert.equal(asked.length, 1);
});

test("silence is a broken connection, and a timeout is the end", async (t) => {
  const { asked, client } = await scripted(t, tells(PLANNED, "stay"));
  const timers = t.mock.method(globalThis, "setTimeout", sooner(setTimeout, 60_000, 100));
  await assert.rejects(all(client.batches.events("x", { timeoutMs: 1500 })), /not finished within/);
  assert.ok(asked.length > 1);
  timers.mock.restore();
});

/** As setTimeout, but one wait is shorter. */
const sooner = (real, what, ms) => (work, wait, ...rest) => real(work, wait === what ? ms : wait, ...rest);

test("leaving the loop closes the connection", async (t) => {
  const { asked, client } = await scripted(t, tells(PLANNED, "stay"));
  for await (const event of client.batches.events("x")) if (event.kind === "planned") break;
  const { socket } = asked[0];
  if (!socket.destroyed) await once(socket, "close");
});

test("aborting ends a call, a stream, and a pause, with the signal's reason", async (t) => {
  const { asked, client } = await scripted(t, tells(PLANNED, "stay"));
  const reason = new Error("enough");
  const calls = [
    (signal) => client.health({ signal }),
    (signal) => all(client.batches.events("x", { signal })),
    (signal) => all(client.analyzeImageStream("aGVsbG8=", {}, { signal })),
  ];
  for (const call of calls) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 60);
    await assert.rejects(call(controller.signal), reason);
    await assert.rejects(call(AbortSignal.abort(reason)), reason);
  }
  assert.equal(asked.length, 3);
  const lost = await scripted(t, drops);
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 200);
  await assert.rejects(all(lost.client.batches.events("x", { signal: controller.signal })), reason);
});

test("a timeout says which, and how to raise it", async (t) => {
  const { client } = await scripted(t, () => {});
  await assert.rejects(client.health({ timeoutMs: 50 }), {
    name: "PromptglassError",
    status: 0,
    message: "not finished within 0.05 s. Raise timeoutMs.",
  });
});

test("a failure is one line with a status", async (t) => {
  const failures = [
    [says(400, '{"error": "no such mode"}'), 400, "no such mode"],
    [says(422, '{"detail": "candidates: wrong"}'), 422, "candidates: wrong"],
    [says(502, "<html>", "text/html"), 502, "the service answered 502 Bad Gateway"],
    [says(500, '{"detail": [1]}'), 500, "the service answered 500 Internal Server Error"],
    [says(200, "<html>", "text/html"), 200, "what came back is no JSON. Check the address."],
    [says(200, '{"success": false, "error": "no"}'), 200, "no"],
    [drops, 0, "no connection, or a broken one. Check that the service runs, and its address."],
  ];
  for (const [script, status, message] of failures) {
    const { client } = await scripted(t, script);
    await assert.rejects(client.health(), { name: "PromptglassError", status, message });
  }
});

test("a key or a login goes with every question", async () => {
  const sent = [];
  const fetch = async (url, { headers }) => {
    sent.push(headers.Authorization);
    return new Response("{}");
  };
  await new PromptglassClient("", { fetch, key: "k" }).health();
  await new PromptglassClient("", { fetch, credentials: "zoë:pass" }).health();
  await new PromptglassClient("", { fetch }).health();
  assert.deepEqual(sent, ["Bearer k", `Basic ${Buffer.from("zoë:pass").toString("base64")}`, undefined]);
});

test("a picture is taken in every form that it has", async () => {
  const bytes = Uint8Array.from({ length: 70_000 }, (_, place) => place % 251);
  const base64 = Buffer.from(bytes).toString("base64");
  const forms = [
    bytes,
    bytes.buffer,
    new DataView(bytes.buffer),
    Buffer.from(bytes),
    new Blob([bytes]),
    new File([bytes], "a.png"),
    base64,
    `data:image/png;base64,${base64}`,
  ];
  const client = new PromptglassClient("", {
    fetch: async (_, { body }) => {
      if (typeof body === "string") assert.ok(JSON.parse(body).image.endsWith(base64));
      else assert.deepEqual(new Uint8Array(await body.get("image").arrayBuffer()), bytes);
      return new Response("{}");
    },
  });
  for (const image of forms) {
    await client.interrogate(image);
    await client.analyzeImage(image);
  }
  const large = new Uint8Array(20 * 2 ** 20 + 1);
  for (const image of [large, new Blob([large])]) {
    await assert.rejects(client.interrogate(image), { status: 413 });
    await assert.rejects(client.analyzeImage(image), { status: 413 });
  }
  for (const image of [undefined, null, 7, {}]) await assert.rejects(client.interrogate(image), PromptglassError);
  await assert.rejects(client.analyzeImage("%%"), PromptglassError);
});
