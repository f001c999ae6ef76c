// What is here to interrogate with, and how to get what is not.

import { endpoints, health } from "./api.mjs";
import { button, copyButton, element } from "./dom.mjs";
import { fill } from "./panel.mjs";
import { say } from "./words.mjs";

const WANTED = ["openai/clip-vit-large-patch14", "blip-large"]; // what the modes that write prompts go by, where none is here

export function healthPanel(body) {
  fill(body, health, ({ pair, models, version }) => [
    section(say("foundPair"), pair ? found(pair) : missingPair()),
    section(say("models"), modelList(models)),
    section(say("endpoints"), endpointList()),
    element("p.quiet.version", {}, `promptglass ${version}`),
  ]);
}

const section = (title, ...content) => element("section.section", {}, element("h3", {}, title), content);

function found({ clip, clip_vision }) {
  const names = [...new Set([clip, clip_vision])];
  return element("ul.states", {}, names.map((name) => state("good", name, say("here"))));
}

const missingPair = () => [
  element("ul.states", {}, state("missing", say("noPair"))),
  element("p.quiet", {}, say("noPairHint")),
];

function modelList(models) {
  const here = models.filter((model) => model.here);
  const wanted = models.filter(
    ({ name, kind }) => WANTED.includes(name) && !here.some((other) => other.kind === kind),
  );
  const more = models.filter((model) => !here.includes(model) && !wanted.includes(model));
  return [
    element("ul.states", {}, [...here, ...wanted].map(model)),
    folded(say("moreModels", more.length), more.map(model)),
  ];
}

const folded = (title, rows) =>
  rows.length
    ? element("details.fold", {}, element("summary", {}, title), element("ul.states", {}, rows))
    : null;

function model({ name, kind, here, command }) {
  const get = here ? null : copyButton(command, `${say("copyCommand")}:\n${command}`);
  return state(here ? "good" : "missing", name, kind, get);
}

function endpointList() {
  const place = element("div", {}, element("p.quiet", {}, say("endpointsHint")));
  const check = button(say("check"), async () => {
    check.disabled = true;
    check.textContent = say("checking");
    place.replaceChildren(await endpoints().then(answered, (error) => element("p.failure", {}, error.message)));
    check.disabled = false;
    check.textContent = say("checkAgain");
  });
  return [place, check];
}

function answered(list) {
  const there = list.filter(({ reachable }) => reachable).sort((a, b) => b.usable - a.usable);
  const silent = list.filter(({ reachable }) => !reachable);
  return element(
    "div",
    {},
    element("ul.states", {}, there.map(endpoint)),
    folded(say("silent", silent.length), silent.map(endpoint)),
  );
}

function endpoint({ name, reachable, usable, message, models }) {
  const kind = usable ? "good" : reachable ? "warning" : "missing";
  const word = reachable ? say(usable ? "usable" : "unusable") : "";
  const about = usable && models.length ? models.join(", ") : message;
  return state(kind, name, word, null, about);
}

function state(kind, name, word = "", action = null, about = "") {
  return element(
    "li.state-row",
    {},
    element(`span.dot.${kind}`, { "aria-hidden": "true" }),
    element("span.state-name", { title: name }, name),
    element("span.quiet", {}, word),
    action,
    about ? element("p.quiet.about", { title: about }, about) : null,
  );
}
