// How long a call may take, and who may end it before.

import { PromptglassError } from "./errors.mjs";

const LONGEST_MS = 2 ** 31 - 1; // setTimeout takes what is above for 1

export class Limits {
  #controller = new AbortController();
  #outer;
  #abort = () => this.#controller.abort(this.#outer.reason);
  #timers = {};

  /** outer: the caller's own signal. Throws its reason where it is aborted already. */
  constructor(outer, timeoutMs) {
    outer?.throwIfAborted();
    this.#outer = outer;
    outer?.addEventListener("abort", this.#abort);
    const late = `not finished within ${timeoutMs / 1000} s. Raise timeoutMs.`;
    this.#endAfter(timeoutMs, "whole", late);
  }

  /** Passed to fetch: it ends the connection, which the service notices. */
  get signal() {
    return this.#controller.signal;
  }

  /** Something is to be heard within so many milliseconds from now. */
  expect(withinMs) {
    clearTimeout(this.#timers.silence);
    this.#endAfter(withinMs, "silence", `nothing heard for ${withinMs / 1000} s. Check that the service runs.`);
  }

  /** What is to be thrown in place of an error: the signal's own reason, as fetch does, or a PromptglassError. */
  explained(error) {
    if (this.signal.aborted) return this.signal.reason;
    if (error instanceof PromptglassError) return error;
    const line = "no connection, or a broken one. Check that the service runs, and its address.";
    return new PromptglassError(line, 0, { cause: error });
  }

  /** Nobody waits any more: what is still open is closed. */
  leave() {
    Object.values(this.#timers).forEach(clearTimeout);
    this.#outer?.removeEventListener("abort", this.#abort);
    this.#controller.abort();
  }

  #endAfter(ms, name, line) {
    if (!Number.isFinite(ms)) return;
    const end = () => this.#controller.abort(new PromptglassError(line));
    this.#timers[name] = setTimeout(end, Math.min(ms, LONGEST_MS));
  }
}

/** So many milliseconds later. Rejects with the signal's reason. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const leave = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", leave);
      resolve();
    }, ms);
    signal?.addEventListener("abort", leave, { once: true });
  });
}
