// One interrogation, from the question to its result: queued by our route, and asked after until it is done.
// It runs beside the workflow: the frontend's own socket hears nothing of its nodes and errors.

import { interrogate, jobState } from "./api.mjs";
import { api } from "./host.mjs";
import { say } from "./words.mjs";

const LOOK_MS = 700;
const LOST_ANSWERS = 5;

export class Job {
  #id = null;
  #state = "queued";
  #isCancelled = false;
  #onProgress;

  /** onProgress(state, share): "queued" or "running"; share is 0 to 1 where it is known. */
  constructor(onProgress) {
    this.#onProgress = onProgress;
  }

  /** The result; null where it was cancelled. Rejects with an Error that can be shown. */
  async run(picture, mode) {
    this.#onProgress("queued");
    this.#id = await interrogate(picture, mode);
    if (this.#isCancelled) await this.#stop();
    for (;;) {
      const { state, share, result } = await this.#look();
      if (state === "done") return result;
      if (state === "failed") throw new Error(result.error ?? say("failed"));
      if (state === "stopped" || state === "gone") {
        if (this.#isCancelled) return null;
        throw new Error(say("gone"));
      }
      const hasStarted = state === "running" && this.#state !== "running";
      this.#state = state;
      if (this.#isCancelled && hasStarted) await this.#stop(); // it began while it was taken from the queue
      this.#onProgress(state, share ?? undefined);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  cancel() {
    this.#isCancelled = true;
    if (this.#id) this.#stop().catch(() => {}); // the loop hears of a server that is gone
  }

  /** One lost answer is no lost job. */
  async #look() {
    for (let left = LOST_ANSWERS; ; left -= 1) {
      try {
        return await jobState(this.#id);
      } catch (error) {
        if (left <= 0) throw error;
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
  }

  async #stop() {
    await post("/queue", { delete: [this.#id] });
    // Hosts before autumn 2025 ignore the name and end whatever runs.
    if (this.#state === "running") await post("/interrupt", { prompt_id: this.#id });
  }
}

const post = (path, what) =>
  api.fetchApi(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(what),
  });
