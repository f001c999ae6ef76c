// The hook on a stand-in for React, so that no package is needed; tests/browser_client.py has the real one.

import assert from "node:assert/strict";
import { register } from "node:module";
import { test } from "node:test";

const resolve = `export const resolve = (name, context, next) => name === "react"
  ? { url: ${JSON.stringify(new URL("./hooks.mjs", import.meta.url).href)}, shortCircuit: true }
  : next(name, context);`;
register(`data:text/javascript,${encodeURIComponent(resolve)}`);
const { mounted } = await import("./hooks.mjs");
const { useImageAnalyzer } = await import("../useImageAnalyzer.mjs");

const FOUND = { success: true, generatedPrompt: "a cat", analysis: { style: [] }, userInput: "" };

/** A client whose answers are given by hand. */
function byHand() {
  const calls = [];
  const analyzeImage = (file, fields, { signal }) =>
    new Promise((resolve, reject) => {
      calls.push({ file, fields, signal, resolve, reject });
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  return { calls, client: { analyzeImage } };
}

const shown = ({ isAnalyzing, error, generatedPrompt, analysis }) => ({ isAnalyzing, error, generatedPrompt, analysis });
const IDLE = { isAnalyzing: false, error: null, generatedPrompt: null, analysis: null };
const ANALYZING = { ...IDLE, isAnalyzing: true };
const DONE = { ...IDLE, generatedPrompt: "a cat", analysis: { style: [] } };

test("a picture is analysed", async () => {
  const { calls, client } = byHand();
  const hook = mounted(() => useImageAnalyzer({ client }));
  assert.deepEqual(shown(hook.now()), IDLE);
  const analyzing = hook.now().analyzeImage("file", "by the sea", true);
  assert.deepEqual(shown(hook.now()), ANALYZING);
  assert.deepEqual(calls[0].fields, { user_prompt: "by the sea", deep_thinking: true });
  calls[0].resolve(FOUND);
  assert.deepEqual(await analyzing, { success: true, generatedPrompt: "a cat", analysis: { style: [] }, error: null });
  assert.deepEqual(shown(hook.now()), DONE);
});

test("a failure is told and not thrown", async () => {
  const { calls, client } = byHand();
  const hook = mounted(() => useImageAnalyzer({ client }));
  const analyzing = hook.now().analyzeImage("file");
  calls[0].reject(new Error("no model"));
  assert.deepEqual(await analyzing, { success: false, generatedPrompt: null, analysis: null, error: "no model" });
  assert.deepEqual(shown(hook.now()), { ...IDLE, error: "no model" });
});

test("a new call ends the one before", async () => {
  const { calls, client } = byHand();
  const hook = mounted(() => useImageAnalyzer({ client }));
  const first = hook.now().analyzeImage("one");
  const second = hook.now().analyzeImage("two");
  assert.ok(calls[0].signal.aborted);
  assert.equal((await first).error, "aborted");
  assert.deepEqual(shown(hook.now()), ANALYZING);
  calls[1].resolve(FOUND);
  assert.ok((await second).success);
  assert.deepEqual(shown(hook.now()), DONE);
});

test("so does the component when it goes away, and abort()", async () => {
  const { calls, client } = byHand();
  const hook = mounted(() => useImageAnalyzer({ client }));
  const first = hook.now().analyzeImage("one");
  hook.now().abort();
  assert.deepEqual(shown(hook.now()), IDLE);
  assert.equal((await first).success, false);
  const second = hook.now().analyzeImage("two");
  hook.unmount();
  assert.ok(calls[1].signal.aborted);
  assert.equal((await second).error, "aborted");
});

test("its functions are the same at every render", async () => {
  const hook = mounted(() => useImageAnalyzer({ baseUrl: "http://127.0.0.1:9" }));
  const { analyzeImage, abort } = hook.now();
  const { success, error } = await analyzeImage(new Blob(["x"]));
  assert.equal(success, false);
  assert.match(error, /no connection/);
  assert.equal(hook.now().analyzeImage, analyzeImage);
  assert.equal(hook.now().abort, abort);
});
