// The latest results, newest first, each with the picture it is about.

import { results } from "./api.mjs";
import { pager } from "./cards.mjs";
import { copyButton, element, icon, thumbnail } from "./dom.mjs";
import { api } from "./host.mjs";
import { empty, fill } from "./panel.mjs";
import { sendButton } from "./sending.mjs";
import { ago, say } from "./words.mjs";

/** Draws into the body, and again when a job has ended; gives what ends that. */
export function resultsPanel(body) {
  const listening = new AbortController();
  const drawn = new Map(); // so that what was unfolded stays so
  const kept = (result) => {
    const key = `${result.prompt_id} ${result.node} ${result.state}`;
    if (!drawn.has(key)) drawn.set(key, item(result));
    return drawn.get(key);
  };
  const draw = () => fill(body, results, (found) => (found.length ? found.map(kept) : nothing()));
  let left = Infinity; // jobs in the queue
  const hear = ({ detail }) => {
    const now = detail?.exec_info?.queue_remaining ?? 0;
    if (now < left) draw();
    left = now;
  };
  api.addEventListener("status", hear, { signal: listening.signal });
  draw();
  return () => listening.abort();
}

const nothing = () => empty("eye", say("noResults"), say("noResultsHint"));

function item(result) {
  const { image, title, at, state, error, cards } = result;
  const actions = (card) => (card.text ? sendButton(card.text) : []);
  return element(
    "article.result",
    {},
    element(
      "header.result-head",
      {},
      thumbnail(image),
      element(
        "div.result-about",
        {},
        element("h3", {}, title.replace(/ · promptglass$/, "")),
        element("p.quiet", { title: at }, [image?.filename, at ? ago(at) : ""].filter(Boolean).join(" · ")),
      ),
    ),
    state === "failed"
      ? element("p.failure", {}, icon("exclamation-triangle"), element("span", {}, error), copyButton(error))
      : pager(cards, { actions, isBrief: true }),
  );
}
