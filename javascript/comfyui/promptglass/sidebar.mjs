// The sidebar tab: what was found lately, what is here to find it with, which wildcards were written.

import { healthPanel } from "./panel_health.mjs";
import { resultsPanel } from "./panel_results.mjs";
import { wildcardsPanel } from "./panel_wildcards.mjs";
import { element, iconButton } from "./dom.mjs";
import { app } from "./host.mjs";
import { say } from "./words.mjs";

const ID = "promptglass.panel";
const PANELS = { results: resultsPanel, health: healthPanel, wildcards: wildcardsPanel };

let chosen = "results";
let view = null;

export const sidebarTab = {
  id: ID,
  icon: "pi pi-eye",
  title: "prompt\u200bglass", // it may break where the bar is narrow
  tooltip: "promptglass",
  type: "custom",
  // The frontend calls it again whenever it draws.
  render(place) {
    if (view && place.contains(view.root)) return;
    view?.leave();
    view = opened();
    place.classList.add("promptglass-place");
    place.replaceChildren(view.root);
  },
  destroy() {
    view?.leave();
    view = null;
  },
};

/** Opens the sidebar at one of the panels. */
export function showSidebar(panel) {
  chosen = panel;
  if (view?.root.isConnected) view.choose(panel);
  else app.extensionManager.command.execute(`Workspace.ToggleSidebarTab.${ID}`);
}

function opened() {
  const body = element("div.panel", { role: "tabpanel", tabindex: "-1" });
  const tabs = Object.keys(PANELS).map((name) =>
    element("button.tab", { type: "button", role: "tab", onclick: () => choose(name) }, say(name)),
  );
  let leave = () => {};

  function choose(name) {
    chosen = name;
    leave();
    body.replaceChildren();
    tabs.forEach((tab, position) => {
      const isChosen = Object.keys(PANELS)[position] === name;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    });
    body.setAttribute("aria-label", say(name));
    leave = PANELS[name](body) ?? (() => {});
  }
  function turn(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length];
    next.click();
    next.focus();
  }
  const root = element(
    "div.sidebar",
    {},
    element(
      "header.sidebar-head",
      {},
      element("h2", {}, "promptglass"),
      iconButton("refresh", say("refresh"), () => choose(chosen)),
    ),
    element("div.tabs", { role: "tablist", onkeydown: turn }, tabs),
    body,
  );
  choose(chosen);
  return { root, choose, leave: () => leave() };
}
