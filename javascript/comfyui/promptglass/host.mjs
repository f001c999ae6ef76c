// The running frontend: all that our modules ask of it, in one place.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

export { api, app };

export const setting = (id) => app.extensionManager.setting.get(id);

export const locale = () => setting("Comfy.Locale") ?? "en";

export const rootGraph = () => app.rootGraph ?? app.graph?.rootGraph ?? app.graph;

/** The graph on the screen: the workflow's, or a subgraph that the user has opened. */
export const shownGraph = () => app.canvas?.graph ?? app.graph;

export const selectedNodes = () => Object.values(app.canvas?.selected_nodes ?? {});

/** A node by the frontend's name for it: "12", or "SUBGRAPH:12". */
export function nodeAt(locator) {
  const [id, subgraph] = String(locator).split(":").reverse();
  const graph = subgraph ? rootGraph().subgraphs?.get(subgraph) : rootGraph();
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
}

export function outputOf(node) {
  const isNested = node.graph && node.graph !== rootGraph();
  return app.nodeOutputs?.[isNested ? `${node.graph.id}:${node.id}` : node.id];
}

/** A change that Ctrl+Z takes back as one. */
export function asOneChange(change) {
  app.canvas.emitBeforeChange();
  try {
    change();
  } finally {
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
}

/** Where the frontend keeps what floats over the canvas, and we do. */
export const overlay = () =>
  app.canvas.canvas.closest(".graph-canvas-container") ?? app.canvas.canvas.parentElement;

/** beside: an element of ours in the page. */
export async function copy(text, beside) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  // Over plain http from another machine, browsers offer nothing but this.
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "promptglass-offscreen";
  beside.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (!isCopied) throw new Error("the browser does not let us copy");
}

export function addStyles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("promptglass.css", import.meta.url).href;
  overlay().append(link);
}

/** Where the frontend would load a picture from. */
export const pictureUrl = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** Filename, subfolder and type of a picture by the address it was loaded from; null where it has none. */
export function pictureAt(url) {
  const query = new URLSearchParams(url.split("?")[1] ?? "");
  const [filename, subfolder, type] = ["filename", "subfolder", "type"].map((key) => query.get(key) ?? "");
  return filename && !url.startsWith("blob:") ? { filename, subfolder, type: type || "output" } : null;
}
