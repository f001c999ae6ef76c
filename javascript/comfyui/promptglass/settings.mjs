// Two settings of the frontend: which mode a picture is interrogated with, and which language model is asked.

import { health } from "./api.mjs";
import { setting } from "./host.mjs";

const MODE = "promptglass.defaultMode";
const PROFILE = "promptglass.profile";

export const MODES = ["fast", "best", "classic", "caption", "tables", "negative"];

// Filled before anyone opens the settings.
const profiles = ["ollama"];

export const settings = [
  {
    id: MODE,
    category: ["promptglass", "Interrogate", "Default mode"],
    name: "Default mode",
    tooltip: "What the eye above a picture does, and what its menu offers first",
    type: "combo",
    options: MODES,
    defaultValue: "fast",
  },
  {
    id: PROFILE,
    category: ["promptglass", "Language models", "Profile"],
    name: "Profile of new LLM nodes",
    tooltip: "Profiles live in promptglass's config.yaml, and so do the names of their keys; no key is kept here",
    type: "combo",
    options: profiles,
    defaultValue: "ollama",
  },
];

/** The modes, the user's first. */
export const modes = () => [...new Set([setting(MODE), ...MODES])].filter((mode) => MODES.includes(mode));

export async function fillProfiles() {
  const known = await health().then(
    (state) => state.profiles,
    () => [],
  );
  if (known.length) profiles.splice(0, profiles.length, ...known);
}

/** On a new node; what a workflow says comes later, and counts. */
export function applyProfile(node) {
  const widget = node.widgets?.find(({ name }) => name === "profile");
  const chosen = setting(PROFILE);
  if (widget?.options?.values?.includes?.(chosen)) widget.value = chosen;
}
