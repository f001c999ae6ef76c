// What the panels of the sidebar have in common: waiting, failing, and having nothing to show.

import { element, icon } from "./dom.mjs";

const latest = new WeakMap(); // panel: its latest question

/** Asks, and draws the answer into the panel unless that has been asked for something else meanwhile. */
export async function fill(body, ask, draw) {
  if (!body.childElementCount) body.append(element("div.waiting", {}, icon("spin pi-spinner")));
  const question = Symbol("question");
  latest.set(body, question);
  const drawn = await ask().then(draw, (error) => empty("exclamation-triangle", error.message));
  if (latest.get(body) === question) body.replaceChildren(...[drawn].flat());
}

/** There is nothing, and this is why and what to do. */
export const empty = (sign, title, text = "") =>
  element("div.empty", {}, icon(sign), element("h3", {}, title), text ? element("p", {}, text) : null);
