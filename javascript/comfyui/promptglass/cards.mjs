// What a node has found, drawn: a card per picture, with the prompt, its score, labels and colours.
// The fields of a card are described in nodes/cards.py.

import { copyButton, element, iconButton } from "./dom.mjs";
import { say } from "./words.mjs";

const WIDGET = "promptglass_cards";
const WIDTH = 340;
const HEIGHT = { least: 56, most: 340 }; // of the cards on a node; what is longer scrolls

const MARGINS = 24; // around a card on a node

const shownOn = new WeakMap(); // node: the element that holds its cards

export const drawsCards = (node) => (node?.comfyClass ?? node?.type ?? "").startsWith("Promptglass");

/** Draws an output's cards on the node; there is nothing on it before the first. */
export function drawOn(node, output) {
  const cards = output?.promptglass;
  if (!cards?.length || !drawsCards(node)) return;
  if (!shownOn.has(node)) shownOn.set(node, addWidget(node));
  const place = shownOn.get(node);
  place.replaceChildren(pager(cards));
  makeRoom(node, place);
}

/**
 * One card at a time, and a way to the others.
 * actions: makes buttons for a card. isBrief: the evidence is folded away.
 */
export function pager(cards, { actions = () => [], isBrief = false } = {}) {
  let at = 0;
  const frame = element("div.pager", cards.length > 1 ? { onkeydown: turn } : {});
  const show = () => frame.replaceChildren(drawn(cards[at], navigation(), actions(cards[at]), isBrief));

  function navigation() {
    if (cards.length < 2) return null;
    return element(
      "div.pages",
      {},
      iconButton("chevron-left", say("previous"), () => move(-1)),
      element("span", {}, say("position", at + 1, cards.length)),
      iconButton("chevron-right", say("next"), () => move(1)),
      copyButton(allTexts, say("copyAll", cards.length)),
    );
  }
  function allTexts() {
    return cards.map((card) => card.text).join("\n");
  }
  function move(by) {
    const pressed = [...frame.querySelectorAll("button")].indexOf(document.activeElement);
    at = (at + by + cards.length) % cards.length;
    show();
    frame.querySelectorAll("button")[pressed]?.focus();
  }
  function turn(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.closest("[role=tablist]")) return;
    event.preventDefault();
    event.stopPropagation();
    move(by);
  }
  show();
  return frame;
}

function drawn(card, navigation, actions, isBrief) {
  const evidence = [
    card.negative ? negative(card.negative) : null,
    bars(card.bars),
    lines(card.lines),
    card.model ? element("p.note", {}, card.model) : null,
  ].filter(Boolean);
  return element(
    "article.card",
    {},
    element(
      "header.card-head",
      {},
      element("span.card-title", { title: card.model }, card.title ?? ""),
      scored(card.score),
      navigation,
    ),
    card.text ? prompt(card.text) : null,
    colours(card.colours),
    isBrief && evidence.length ? folded(evidence) : evidence,
    card.note ? element("p.note", {}, card.note) : null,
    actions.length ? element("footer.actions", {}, actions) : null,
  );
}

const folded = (evidence) =>
  element("details.fold", {}, element("summary", {}, say("evidence")), element("div.card", {}, evidence));

function scored(score) {
  return Number.isFinite(score) ? element("span.score", { title: say("score") }, score.toFixed(3)) : null;
}

const prompt = (text) =>
  element("div.prompt", {}, element("p.text", { tabindex: "0" }, text), copyButton(text));

const negative = (text) =>
  element("details.fold.negative", {}, element("summary", {}, say("negativeOf")), prompt(text));

function colours(found) {
  if (!found?.length) return null;
  const strip = found.map(({ name, hex, share }) =>
    element("span.strip-part", { style: { background: hex, "flex-grow": share * 100 }, title: `${name} ${hex}` }),
  );
  const names = found.map(({ name, hex, share }) =>
    element(
      "li.colour",
      { title: hex },
      element("span.swatch", { style: { background: hex } }),
      name,
      element("span.share", {}, `${Math.round(share * 100)}%`),
    ),
  );
  return element("div.colours", {}, element("div.strip", { "aria-hidden": "true" }, strip), element("ul", {}, names));
}

function bars(found) {
  if (!found?.length) return null;
  const groups = grouped(found);
  return [...groups].map(([group, members]) =>
    element(
      "section.bars",
      {},
      group ? element("h4.group", {}, group) : null,
      element("ul", {}, members.map(bar)),
    ),
  );
}

function grouped(found) {
  const groups = new Map();
  for (const one of found) groups.set(one.group ?? "", [...(groups.get(one.group ?? "") ?? []), one]);
  return groups;
}

function bar({ label, value, shown, emoji }) {
  const share = Math.min(Math.max(value, 0), 1);
  return element(
    "li.bar",
    { title: label },
    element("span.label", {}, emoji ? `${emoji} ${label}` : label),
    element("span.track", { "aria-hidden": "true" }, element("span.fill", { style: { width: `${share * 100}%` } })),
    element("span.value", {}, shown ?? value.toFixed(2)),
  );
}

function lines(found) {
  return found?.length ? element("ul.lines", {}, found.map((line) => element("li", {}, line))) : null;
}

// -- on a node -----------------------------------------------------------------------------------------------

const heights = new WeakMap(); // element: what its cards need

function addWidget(node) {
  const place = element("div.on-node", {
    // A card that scrolls takes the wheel from the canvas; to zoom, there is Ctrl.
    onwheel: (event) => place.scrollHeight > place.clientHeight && !event.ctrlKey && event.stopPropagation(),
    onpointerdown: (event) => event.stopPropagation(),
  });
  const widget = node.addDOMWidget(WIDGET, "promptglass", place, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => heights.get(place) ?? HEIGHT.least,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false;
  return place;
}

/** The node grows as far as its cards need; what the user has made larger stays so. */
function makeRoom(node, place) {
  const grow = () => {
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], height)]);
    node.graph?.setDirtyCanvas(true, true);
  };
  grow();
  // How high a card is shows when it is on the page, which takes the frontend a frame or two.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const wanted = (place.firstElementChild?.scrollHeight ?? 0) + MARGINS;
      heights.set(place, Math.min(Math.max(wanted, HEIGHT.least), HEIGHT.most));
      grow();
    }),
  );
}
