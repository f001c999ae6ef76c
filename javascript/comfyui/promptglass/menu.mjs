// "Interrogate with promptglass": in the menu of a node that shows a picture, on its toolbox, as a command.

import { pictureAt, selectedNodes } from "./host.mjs";
import { modes } from "./settings.mjs";
import { hint, interrogateWithToast } from "./toast.mjs";
import { say } from "./words.mjs";

const COMMAND = "promptglass.interrogate";

export const commands = [
  {
    id: COMMAND,
    label: "promptglass: Interrogate the selected picture",
    icon: "pi pi-eye",
    function() {
      const picture = selectedNodes().map(shownPicture).find(Boolean);
      if (picture) interrogateWithToast(picture, modes()[0]);
      else hint(say("noPicture"));
    },
  },
];

export const menuCommands = [{ path: ["Extensions", "promptglass"], commands: [COMMAND] }];

export const toolboxCommands = (item) => (shownPicture(item) ? [COMMAND] : []);

export function menuItems(node) {
  const picture = shownPicture(node);
  if (!picture) return [];
  const options = modes().map((mode) => ({
    content: say(mode),
    callback: () => interrogateWithToast(picture, mode),
  }));
  return [null, { content: say("interrogate"), has_submenu: true, submenu: { options } }];
}

/** The picture that a node shows, of several the one under the mouse or in view; null where there is none. */
function shownPicture(node) {
  const shown = node?.imgs?.[node.imageIndex ?? node.overIndex ?? 0];
  return shown?.src ? pictureAt(shown.src) : null;
}
