import type { Analysis, Image, PromptglassClient } from "./promptglass.mjs";

export interface ImageAnalyzerOptions {
  /** VITE_API_BASE_URL where Vite knows one, or else "http://localhost:8000". */
  baseUrl?: string;
  key?: string;
  timeoutMs?: number;
  /** One of one's own, in place of all of these. */
  client?: PromptglassClient;
}

export type ImageAnalysis =
  | { success: true; generatedPrompt: string; analysis: Analysis; error: null; note?: string }
  | { success: false; generatedPrompt: null; analysis: null; error: string };

export interface ImageAnalyzer {
  /** Never rejects. A new call ends the one before, and so does the component when it goes away. */
  analyzeImage(file: Image, userInput?: string, deepThinking?: boolean): Promise<ImageAnalysis>;
  isAnalyzing: boolean;
  /** One line; null where there is none. */
  error: string | null;
  generatedPrompt: string | null;
  analysis: Analysis | null;
  /** Ends what is under way. */
  abort(): void;
}

export function useImageAnalyzer(options?: ImageAnalyzerOptions): ImageAnalyzer;
export default useImageAnalyzer;
