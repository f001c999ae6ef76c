// Against the real service, which tests/test_javascript_client.py starts: PROMPTGLASS_URL, and in PROMPTGLASS_PICTURES a
// folder that it may use, with a golden cat.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { PromptglassClient } from "../promptglass.mjs";

const { PROMPTGLASS_URL: url, PROMPTGLASS_PICTURES: folder, PROMPTGLASS_API_KEY: key } = process.env;
const options = { skip: url ? false : "needs PROMPTGLASS_URL" };
const glass = new PromptglassClient(url, { key });
const cat = async () => new File([await readFile(`${folder}/cat.png`)], "cat.png", { type: "image/png" });

test("a picture is interrogated, labelled and refined", options, async () => {
  const found = await glass.interrogate(await cat(), { modes: ["embedded", "fast"], caption: "a cat" });
  assert.deepEqual(found.answers.map((answer) => answer.mode), ["embedded", "fast"]);
  assert.equal(found.answers[0].text, "a cat of gold");
  const labels = await glass.analyze(await cat(), { categories: ["style"], labels: "dog\ncat", top: 2 });
  assert.deepEqual(labels.categories.labels.map((one) => one.label), ["cat", "dog"]);
  await assert.rejects(glass.refine({ text: "a cat", profile: "nobody" }), { status: 400, message: /may not be asked/ });
  await assert.rejects(glass.refine({ image: new Uint8Array(9), profile: "eyes" }), { status: 400 });
});

test("an image is analysed at once and step by step", options, async () => {
  const fields = { user_prompt: "by the sea", deep_thinking: true };
  const found = await glass.analyzeImage(await cat(), fields);
  assert.equal(found.userInput, "by the sea");
  assert.match(found.generatedPrompt, /^by the sea, /);
  const steps = [];
  for await (const step of glass.analyzeImageStream(await cat(), fields)) steps.push(step);
  assert.deepEqual(steps.map((step) => step.status), ["analyzing", "analyzed", "generating", "complete"]);
  assert.deepEqual(steps[1].analysis, found.analysis);
  await assert.rejects(glass.analyzeImage(new Blob(["nothing"])), { status: 400, message: /not a picture/ });
});

test("a batch is started, followed, stopped and listed", options, async () => {
  const job = await glass.batches.start(folder, { modes: "palette,embedded" });
  const heard = [];
  for await (const event of glass.batches.events(job.id)) {
    heard.push(event);
    if (heard.length === 3) await glass.batches.stop(job.id);
  }
  assert.deepEqual(heard.slice(0, 2).map((event) => event.kind), ["planned", "outcome"]);
  assert.deepEqual([heard.at(-1).kind, heard.at(-1).state], ["end", "stopped"]);
  assert.equal((await glass.batches.get(job.id, { after: 1 })).events[0].id, 2);
  assert.equal((await glass.batches.list())[0].id, job.id);
  const rest = [];
  for await (const event of glass.batches.events(job.id, { after: 1 })) rest.push(event);
  assert.deepEqual(rest, heard.slice(1));
  await assert.rejects(glass.batches.events("gone").next(), { status: 404, message: /there is no batch gone/ });
  await assert.rejects(glass.batches.start("/etc"), { status: 400, message: /is not in a folder/ });
});

test("what is there is told, and wildcards are written", options, async () => {
  assert.equal((await glass.health()).modes.palette, null);
  assert.deepEqual(await glass.endpoints(), []);
  assert.ok(Array.isArray((await glass.wildcards(folder)).notes));
});

test("without the key nobody is answered", options, async () => {
  await assert.rejects(new PromptglassClient(url).health(), { status: 401 });
  await assert.rejects(new PromptglassClient(url, { key: "wrong" }).analyzeImage(await cat()), { status: 401 });
});
