// From a prompt to the node that takes it: the selected one, or the positive one, or one that the user picks.

import { asOneChange, selectedNodes, shownGraph } from "./host.mjs";

const NAMES = ["text", "prompt", "positive", "user_prompt"];

/** The nodes that a prompt may mean: one where it is clear, several where it is not. */
export function promptNodes() {
  const selected = selectedNodes().filter(promptWidget);
  if (selected.length) return selected;
  const all = (shownGraph()?.nodes ?? []).filter((node) => isPromptNode(node) && promptWidget(node));
  const positive = all.filter((node) => leadsTo(node, "positive"));
  const rest = all.filter((node) => !leadsTo(node, "negative"));
  return positive.length ? positive : rest.length ? rest : all;
}

export function put(text, node) {
  const widget = promptWidget(node);
  asOneChange(() => {
    widget.value = text;
    widget.callback?.(text);
  });
}

const isPromptNode = (node) => /TextEncode/.test(node.comfyClass ?? node.type) || node.isSubgraphNode?.();

/** Where a node keeps its prompt; a text that comes over a link is not the user's to write. */
function promptWidget(node) {
  const linked = new Set(
    (node.inputs ?? []).filter(({ link }) => link !== null && link !== undefined).map(({ widget }) => widget?.name),
  );
  return node.widgets?.find(
    ({ name, type, value }) =>
      NAMES.includes(name) && !linked.has(name) && typeof value === "string" && type !== "combo",
  );
}

/** Whether what a node gives ends up, over however many nodes, in an input of that name. */
function leadsTo(node, name) {
  const graph = node.graph;
  const seen = new Set([node.id]);
  const ahead = [node];
  while (ahead.length) {
    for (const output of ahead.pop().outputs ?? []) {
      for (const id of output.links ?? []) {
        const link = graph.getLink?.(id) ?? graph.links?.[id];
        const target = link && graph.getNodeById(link.target_id);
        if (target?.inputs?.[link.target_slot]?.name === name) return true;
        if (target && !seen.has(target.id)) {
          seen.add(target.id);
          ahead.push(target);
        }
      }
    }
  }
  return false;
}
