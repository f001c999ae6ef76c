// The routes of the pack (nodes/routes.py). Every failure is an Error whose message can be shown.

import { api } from "./host.mjs";
import { say } from "./words.mjs";

export const results = (limit = 50) => ask(`results?limit=${limit}`).then((answer) => answer.results);
export const health = () => ask("health");
export const endpoints = () => ask("endpoints").then((answer) => answer.endpoints);
export const wildcards = () => ask("wildcards").then((answer) => answer.folders);

export const interrogate = (image, mode) =>
  ask("interrogate", { image, mode }).then((answer) => answer.prompt_id);

export const jobState = (id) => ask(`jobs/${id}`);

async function ask(what, question) {
  const options = question && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  };
  const response = await api.fetchApi(`/promptglass/${what}`, options).catch(() => null);
  if (!response) throw new Error(say("lost"));
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `ComfyUI: ${response.status} ${response.statusText}`);
  return answer;
}
