// The button "To prompt node", wherever a prompt is shown.

import { button, element } from "./dom.mjs";
import { promptNodes, put } from "./prompt_node.mjs";
import { say } from "./words.mjs";

const SHOWN_MS = 2500;

/** The button, and below it what came of it: a word, or a choice where several nodes could be meant. */
export function sendButton(text, kind = "button") {
  const outcome = element("div.outcome", { role: "status" });
  const sent = (node) => {
    put(text, node);
    tell(outcome, say("written", node.title));
  };
  const send = button(
    say("toPromptNode"),
    () => {
      const nodes = promptNodes();
      if (nodes.length === 0) tell(outcome, say("noPromptNode"));
      else if (nodes.length === 1) sent(nodes[0]);
      else outcome.replaceChildren(chooser(nodes, sent));
    },
    kind,
  );
  return [send, outcome];
}

function chooser(nodes, onChoice) {
  const choices = nodes.map((node) => button(`${node.title} #${node.id}`, () => onChoice(node)));
  queueMicrotask(() => choices[0].focus());
  return element("div.chooser", { role: "group", "aria-label": say("toWhich") }, element("span", {}, say("toWhich")), choices);
}

function tell(outcome, text) {
  const said = element("span.said", {}, text);
  outcome.replaceChildren(said);
  setTimeout(() => said.remove(), SHOWN_MS);
}
