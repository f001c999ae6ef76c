// The wildcards that promptglass has written, by the folder of the pack that reads them.

import { wildcards } from "./api.mjs";
import { copyButton, element } from "./dom.mjs";
import { fill } from "./panel.mjs";
import { say } from "./words.mjs";

export function wildcardsPanel(body) {
  fill(body, wildcards, (folders) => folders.map(section));
}

function section({ folder, files }) {
  return element(
    "section.section",
    {},
    element("h3", {}, folder),
    files.length ? element("ul.states", {}, files.map(file)) : element("p.quiet", {}, say("noWildcards")),
  );
}

function file({ name, lines }) {
  const wildcard = `__${name}__`;
  const count = lines === 1 ? say("line") : say("lines", lines ?? "?"); // unknown: the file cannot be read
  return element(
    "li.state-row",
    {},
    element("code.state-name", { title: wildcard }, wildcard),
    element("span.quiet", {}, count),
    copyButton(wildcard, say("copyWildcard", wildcard)),
  );
}
