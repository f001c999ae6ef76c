// A React hook: a picture in, its prompt and its labels out.
//
//   const { analyzeImage, isAnalyzing, error, generatedPrompt, analysis } = useImageAnalyzer();

import { useCallback, useEffect, useMemo, useRef, useState } from "react";

import { PromptglassClient } from "./promptglass.mjs";

// Vite puts the value of .env here when it builds; elsewhere there is no `env`.
const BASE_URL = import.meta.env?.VITE_API_BASE_URL || "http://localhost:8000";

const IDLE = { isAnalyzing: false, error: null, generatedPrompt: null, analysis: null };

/** baseUrl, key, timeoutMs: as of PromptglassClient. client: one of one's own in their place. */
export function useImageAnalyzer({ baseUrl = BASE_URL, key, timeoutMs, client } = {}) {
  const glass = useMemo(
    () => client ?? new PromptglassClient(baseUrl, { key, timeoutMs }),
    [client, baseUrl, key, timeoutMs],
  );
  const [state, setState] = useState(IDLE);
  const underWay = useRef(null); // an AbortController

  const abort = useCallback(() => {
    if (!underWay.current) return;
    underWay.current.abort();
    underWay.current = null;
    setState((former) => ({ ...former, isAnalyzing: false }));
  }, []);

  useEffect(() => abort, [abort]);

  /** Never rejects: {success, generatedPrompt, analysis, error, note?}. A new call ends the one before. */
  const analyzeImage = useCallback(
    async (file, userInput = "", deepThinking = false) => {
      underWay.current?.abort();
      const controller = new AbortController();
      underWay.current = controller;
      setState({ ...IDLE, isAnalyzing: true });
      const fields = { user_prompt: userInput, deep_thinking: deepThinking };
      const found = await glass
        .analyzeImage(file, fields, { signal: controller.signal })
        .then(answered, (error) => failed(error, controller.signal));
      if (underWay.current === controller) {
        underWay.current = null;
        const { error, generatedPrompt, analysis } = found;
        setState({ isAnalyzing: false, error, generatedPrompt, analysis });
      }
      return found;
    },
    [glass],
  );

  return { ...state, analyzeImage, abort };
}

function answered({ generatedPrompt, analysis, note }) {
  const found = { success: true, generatedPrompt, analysis, error: null };
  return note ? { ...found, note } : found;
}

function failed(error, signal) {
  const line = signal.aborted ? "aborted" : error.message;
  return { success: false, generatedPrompt: null, analysis: null, error: line };
}

export default useImageAnalyzer;
