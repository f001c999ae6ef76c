// Elements in one line each. Texts go in as text, never as HTML.

import { copy, pictureUrl } from "./host.mjs";
import { say } from "./words.mjs";

/** element("p.note.quiet", { title }, "text", child): classes get the prefix promptglass-, onX listens. */
export function element(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag || "div");
  made.classList.add(...classes.map((name) => `promptglass-${name}`));
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => (child ?? "") !== ""));
  return made;
}

export const icon = (name) => element("i", { class: `pi pi-${name}`, "aria-hidden": "true" });

/** A button that is an icon alone, with its meaning as a tooltip and for those who do not see it. */
export const iconButton = (name, title, onclick) =>
  element("button.icon-button", { type: "button", title, "aria-label": title, onclick }, icon(name));

export const button = (label, onclick, kind = "button") =>
  element(`button.${kind}`, { type: "button", onclick }, label);

/** Copies, and says so for a moment where it was pressed. text: what to copy, or a function that knows. */
export function copyButton(text, title = say("copy"), label = "") {
  const sign = icon("copy");
  const shown = element("span", {}, label);
  const made = element(
    label ? "button.button" : "button.icon-button",
    { type: "button", title, "aria-label": label ? undefined : title },
    sign,
    label ? shown : null,
  );
  made.addEventListener("click", async () => {
    const isCopied = await copy(typeof text === "function" ? text() : text, made.parentElement).then(
      () => true,
      () => false,
    );
    sign.className = isCopied ? "pi pi-check" : "pi pi-times";
    if (label) shown.textContent = say(isCopied ? "copied" : "notCopied");
    setTimeout(() => {
      sign.className = "pi pi-copy";
      shown.textContent = label;
    }, 1400);
  });
  return made;
}

/** A small picture of the host's, or a sign for one that is gone. */
export function thumbnail(picture) {
  const { filename } = picture ?? {};
  const none = element("span.thumb.no-thumb", { title: filename }, icon("image"));
  if (!picture) return none;
  const shown = element("img.thumb", { src: pictureUrl(picture), alt: filename, title: filename, loading: "lazy" });
  shown.addEventListener("error", () => shown.replaceWith(none));
  return shown;
}
