// promptglass's HTTP API, from a browser or from Node 20 on; it needs nothing but their fetch.
//
//   const glass = new PromptglassClient("http://localhost:8000");
//   const { answers } = await glass.interrogate(file, { modes: "best,negative" });
//
// Questions and answers are the wire's own, field for field. A call is sent once; only the events of a batch are
// asked for again where the connection breaks.

import { PromptglassError } from "./errors.mjs";
import { messages } from "./events.mjs";
import { Limits, pause } from "./limits.mjs";
import { asBase64, asBlob } from "./pictures.mjs";

export { PromptglassError };

const OURS = "/promptglass/v1";
const IMAGES = "/api/images";
const TIMEOUT_MS = 300_000; // Node's fetch waits no longer for an answer to begin
const SILENT_MS = 60_000; // the service says something every 15 s
const ATTEMPTS = 8; // to hear of a batch again, with nothing heard in between
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const ALL_TOLD = {}; // in place of a message

export class PromptglassClient {
  #base;
  #fetch;
  #headers;
  #timeoutMs;

  /** Batches: start, list, get, stop, events. */
  batches;

  /**
   * baseUrl: of the service or the WebUI; "" for the page's own. key: sent as a bearer's. credentials:
   * "NAME:PASSWORD" of a WebUI instead. fetch: another than the global one.
   */
  constructor(baseUrl = "http://localhost:8000", { key, credentials, timeoutMs = TIMEOUT_MS, fetch } = {}) {
    this.#base = String(baseUrl).replace(/\/+$/, "");
    this.#fetch = fetch ?? ((...question) => globalThis.fetch(...question));
    this.#headers = authorization(key, credentials);
    this.#timeoutMs = timeoutMs;
    this.batches = new Batches((...question) => this.#ask(...question), (...place) => this.#follow(...place));
  }

  /** {picture, format, width, height, answers, failures, left_out}; fields: modes, caption, model, llm, … */
  async interrogate(image, fields = {}, options = {}) {
    return this.#ask("/interrogate", async () => ({ ...fields, image: await asBase64(image) }), options);
  }

  /** {…, model, categories: {name: [{label, confidence, score, emoji}]}}; fields: categories, labels, top. */
  async analyze(image, fields = {}, options = {}) {
    return this.#ask("/analyze", async () => ({ ...fields, image: await asBase64(image) }), options);
  }

  /** {answers, warnings}; fields: text, image, or both; prompt_id, profile, wishes, keep, … */
  async refine(fields, options = {}) {
    const question = async () =>
      fields.image == null ? fields : { ...fields, image: await asBase64(fields.image) };
    return this.#ask("/refine", question, options);
  }

  /** {files, notes}: the prompts of a folder as wildcard files. */
  async wildcards(folder, fields = {}, options = {}) {
    return this.#ask("/wildcards", () => ({ ...fields, folder }), options);
  }

  /** What is there, and what stands in a mode's way. */
  async health(options = {}) {
    return this.#ask("/health", null, options);
  }

  /** The language models' endpoints, asked now: [{name, reachable, usable, message, models}]. */
  async endpoints(options = {}) {
    return (await this.#ask("/endpoints", null, options)).endpoints;
  }

  /** {success, generatedPrompt, analysis, userInput, note?}; fields: user_prompt, deep_thinking. */
  async analyzeImage(image, fields = {}, options = {}) {
    return this.#within(options, async (limits) => {
      const body = await formOf(image, fields);
      return jsonOf(await this.#send(`${IMAGES}/analyze`, { method: "POST", body }, limits));
    });
  }

  /** The same step by step: {status: "analyzing" | "analyzed" | "generating" | "complete", …}. */
  async *analyzeImageStream(image, fields = {}, options = {}) {
    const limits = this.#limits(options);
    try {
      const body = await formOf(image, fields);
      const response = await this.#send(`${IMAGES}/analyze-stream`, { method: "POST", body }, limits);
      for await (const { data } of messages(response)) {
        const step = parsed(data);
        if (step.status === "error") throw new PromptglassError(step.message ?? "it failed", 0);
        yield step;
        if (step.status === "complete") return;
      }
      throw new PromptglassError("the analysis broke off. Try again.");
    } catch (error) {
      throw limits.explained(error);
    } finally {
      limits.leave();
    }
  }

  /** question: a function that makes it; null to get. */
  #ask(path, question, options, method = question ? "POST" : "GET") {
    return this.#within(options, async (limits) => {
      const asked = question && (await question());
      const content = asked && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) };
      return jsonOf(await this.#send(OURS + path, { method, ...content }, limits));
    });
  }

  /** Messages of one connection. */
  async *#follow(path, lastId, options) {
    const limits = this.#limits({ timeoutMs: Infinity, ...options });
    try {
      limits.expect(SILENT_MS);
      const headers = lastId ? { "Last-Event-ID": String(lastId) } : {};
      const response = await this.#send(OURS + path, { headers }, limits);
      if (response.status === 204) yield ALL_TOLD;
      else yield* messages(response, () => limits.expect(SILENT_MS));
    } catch (error) {
      throw limits.explained(error);
    } finally {
      limits.leave();
    }
  }

  async #within(options, work) {
    const limits = this.#limits(options);
    try {
      return await work(limits);
    } catch (error) {
      throw limits.explained(error);
    } finally {
      limits.leave();
    }
  }

  #limits({ signal, timeoutMs = this.#timeoutMs }) {
    return new Limits(signal, timeoutMs);
  }

  /** An answer that is none of a failure. */
  async #send(path, { headers, ...options }, limits) {
    limits.signal.throwIfAborted(); // a picture took its time to read
    const response = await this.#fetch(this.#base + path, {
      ...options,
      headers: { ...headers, ...this.#headers },
      signal: limits.signal,
    });
    if (!response.ok) throw await refusalOf(response);
    return response;
  }
}

/** Folders, interrogated where the service is. Their work goes on whether anybody listens or not. */
class Batches {
  #ask;
  #follow;

  constructor(ask, follow) {
    this.#ask = ask;
    this.#follow = follow;
  }

  /** The job. fields: recursive, force, verify, modes, …, and those of captions: txt, prefix, … */
  async start(folder, fields = {}, options = {}) {
    return this.#ask("/batches", () => ({ ...fields, folder }), options);
  }

  /** The newest first. */
  async list(options = {}) {
    return (await this.#ask("/batches", null, options)).batches;
  }

  /** The job; with `after` also its events from there on. */
  async get(id, { after, ...options } = {}) {
    return this.#ask(`${pathOf(id)}${after == null ? "" : `?after=${after}`}`, null, options);
  }

  /** The job: "stopping" until what is under way is saved. */
  async stop(id, options = {}) {
    return this.#ask(`${pathOf(id)}/stop`, () => ({}), options);
  }

  /**
   * Events as they come; the last is the job itself, of kind "end". Each is told once, over however many
   * connections. after: the id of the last that is known. Without a timeout, unless one is given.
   */
  async *events(id, { after = 0, ...options } = {}) {
    const startedAt = Date.now();
    const left = () => (options.timeoutMs ?? Infinity) - (Date.now() - startedAt);
    let lastId = after;
    for (let attempts = 0; ; attempts += 1) {
      if (attempts) await pause(Math.min(pauseMs(attempts), Math.max(left(), 0)), options.signal);
      try {
        const limits = { ...options, timeoutMs: Math.max(left(), 0) };
        for await (const message of this.#follow(`${pathOf(id)}/events`, lastId, limits)) {
          if (message === ALL_TOLD) return;
          const event = parsed(message.data);
          [lastId, attempts] = [message.id || lastId, 0];
          yield event;
          if (event.kind === "end") return;
        }
        throw new PromptglassError("the events broke off before the end of the batch. Ask again.");
      } catch (error) {
        if (!mayPass(error) || attempts >= ATTEMPTS || left() <= 0) throw error;
      }
    }
  }
}

const pathOf = (id) => `/batches/${encodeURIComponent(id)}`;

const pauseMs = (attempts) =>
  Math.min(FIRST_PAUSE_MS * 2 ** (attempts - 1), LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);

const mayPass = (error) =>
  error instanceof PromptglassError && (error.status === 0 || error.status === 429 || error.status >= 502);

function authorization(key, credentials) {
  if (key) return { Authorization: `Bearer ${key}` };
  if (!credentials) return {};
  const bytes = new TextEncoder().encode(credentials);
  return { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` };
}

async function formOf(image, fields) {
  const form = new FormData();
  const blob = await asBlob(image);
  form.append("image", blob, blob.name || "image");
  for (const [name, value] of Object.entries(fields)) if (value != null) form.append(name, String(value));
  return form;
}

async function jsonOf(response) {
  const answer = parsed(await response.text());
  if (answer?.success === false) throw new PromptglassError(lineIn(answer) ?? "it failed", response.status);
  return answer;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new PromptglassError("what came back is no JSON. Check the address.", 200, { cause });
  }
}

/** promptglass says it in one line; a proxy before it, with a page. */
async function refusalOf(response) {
  const said = await response.text().then(JSON.parse).catch(() => null);
  const line = lineIn(said) ?? `the service answered ${response.status} ${response.statusText}`.trim();
  return new PromptglassError(line, response.status);
}

const lineIn = (answer) =>
  [answer?.error, answer?.detail, answer?.message].find((line) => typeof line === "string" && line);
