// promptglass's tab in A1111, Forge and reForge: sends prompts to the host's boxes, and takes pictures from the
// clipboard. A classic script, loaded with every page of the host: it leaves nothing behind but two listeners.

(() => {
  const SEND = /^promptglass_send_(prompt|negative)_(txt2img|img2img)$/;
  const PASTE = "promptglass_single_paste";
  const BOXES = { prompt: "prompt", negative: "neg_prompt" };
  const SWITCHES = { txt2img: "switch_to_txt2img", img2img: "switch_to_img2img" };
  const AREA = "promptglass_single_file";

  const find = (selector) => gradioApp().querySelector(selector);
  const isShown = (element) => Boolean(element && element.offsetParent);

  document.addEventListener("click", (event) => {
    const id = event.target.closest?.("[id^=promptglass_s]")?.id ?? "";
    const [, what, tab] = SEND.exec(id) ?? [];
    if (what) send(what, tab);
    if (id === PASTE) paste();
  });

  /** Sets one box and shows its tab. Nothing else there changes: the text is not read as parameters. */
  function send(what, tab) {
    const from = find(`#promptglass_${what} textarea`);
    const box = find(`#${tab}_${BOXES[what]} textarea`);
    if (!from || !box) return;
    box.value = from.value;
    updateInput(box);
    window[SWITCHES[tab]]?.();
  }

  /** What the button does. Browsers show the clipboard only to https and to this machine: Ctrl+V always works. */
  async function paste() {
    if (!navigator.clipboard?.read) return say("Press Ctrl+V instead");
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((one) => one.startsWith("image/"));
        if (type) return drop(new File([await item.getType(type)], `pasted.${type.split("/")[1]}`, { type }));
      }
      say("There is no picture on the clipboard");
    } catch {
      say("The browser does not allow it: press Ctrl+V instead");
    }
  }

  document.addEventListener("paste", (event) => {
    if (!isShown(find(`#${AREA}`)) || event.target.closest?.("textarea, input")) return;
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    drop(file);
  });

  /** As if the file had been chosen: one that is there goes first. */
  async function drop(file) {
    find(`#${AREA} button[aria-label="Clear"], #${AREA} button[title="Clear"]`)?.click();
    const input = await appearing(`#${AREA} input[type="file"]`);
    if (!input) return;
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  async function appearing(selector) {
    for (let tries = 0; tries < 40; tries++) {
      await new Promise((done) => setTimeout(done, 50));
      if (find(selector)) return find(selector);
    }
    return null;
  }

  /** On the button itself, for a while: there is nowhere nearer. */
  function say(words) {
    const place = find(`#${PASTE}`);
    const button = place?.tagName === "BUTTON" ? place : place?.querySelector("button");
    if (!button || button.dataset.words) return;
    button.dataset.words = button.textContent;
    button.textContent = words;
    setTimeout(() => {
      button.textContent = button.dataset.words;
      delete button.dataset.words;
    }, 2500);
  }
})();
