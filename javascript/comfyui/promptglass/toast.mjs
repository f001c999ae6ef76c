// What became of a picture that was interrogated, at the lower right: progress first, then the prompt.
// It stays until it is closed, and takes no click from the canvas beside it.

import { pager } from "./cards.mjs";
import { button, copyButton, element, icon, iconButton, thumbnail } from "./dom.mjs";
import { overlay } from "./host.mjs";
import { Job } from "./job.mjs";
import { sendButton } from "./sending.mjs";
import { showSidebar } from "./sidebar.mjs";
import { say } from "./words.mjs";

let stack = null;
const toasts = new WeakMap(); // element: what closes it

/** Interrogates a picture and shows what comes of it. */
export function interrogateWithToast(picture, mode) {
  const toast = opened(picture);
  const bar = element("div.progress", { role: "progressbar", "aria-label": "promptglass" }, element("span.progress-fill"));
  const words = element("p.state", {}, say("queued"));
  const job = new Job((state, share) => {
    words.textContent = say(state);
    bar.classList.toggle("promptglass-is-endless", share === undefined);
    bar.firstElementChild.style.width = `${(share ?? 0) * 100}%`;
  });
  toast.onClosed = () => job.cancel();
  const cancel = button(say("cancel"), () => {
    cancel.disabled = true;
    job.cancel();
  });
  toast.body.replaceChildren(words, bar, element("footer.actions", {}, cancel));
  job.run(picture, mode).then(
    (result) => (result ? showResult(toast, result) : toast.close()),
    (error) => showFailure(toast, error.message),
  );
}

/** A line of ours that belongs to no picture. */
export function hint(text) {
  showFailure(opened(null), text);
}

function showResult(toast, result) {
  toast.onClosed = null;
  const actions = (card) => [sendButton(card.text, "button.primary"), copyButton(card.text, say("copy"), say("copy"))].flat();
  toast.body.replaceChildren(pager(result.cards, { actions, isBrief: true }));
}

function showFailure(toast, text) {
  toast.onClosed = null;
  const help = /models get|\.safetensors/.test(text) ? button(say("showHealth"), () => showSidebar("health")) : null;
  toast.body.replaceChildren(
    element("p.failure", {}, icon("exclamation-triangle"), element("span", {}, text)),
    element("footer.actions", {}, help, copyButton(text, say("copy"), say("copy"))),
  );
}

function opened(picture) {
  const body = element("div.toast-body", { role: "status", "aria-live": "polite" });
  const shown = element(
    "section.toast",
    { "aria-label": "promptglass" },
    picture ? thumbnail(picture) : null,
    body,
    iconButton("times", say("close"), () => toast.close()),
  );
  const toast = {
    body,
    onClosed: null,
    close() {
      if (!shown.isConnected) return; // a job that was cancelled ends later than its toast
      toast.onClosed?.();
      toast.onClosed = null;
      shown.remove();
      if (!stack.childElementCount) putAway();
    },
  };
  toasts.set(shown, toast);
  place().append(shown);
  return toast;
}

function place() {
  if (!stack) {
    stack = element("div.toasts");
    overlay().append(stack);
    window.addEventListener("keydown", closeNewest, true);
  }
  return stack;
}

function putAway() {
  stack.remove();
  stack = null;
  window.removeEventListener("keydown", closeNewest, true);
}

/** Esc belongs first to what is written in, and to whatever lies open over the graph. */
function closeNewest(event) {
  if (event.key !== "Escape" || event.target.closest?.("input, textarea, [contenteditable]")) return;
  if (document.querySelector("[role=dialog], [role=menu], .litecontextmenu, .litesearchbox")) return;
  event.stopPropagation();
  toasts.get(stack.lastElementChild).close();
}
