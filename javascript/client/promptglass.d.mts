/** The file as it is; as text, base64, alone or in a data: address. */
export type Image = Blob | ArrayBuffer | ArrayBufferView | string;

export interface CallOptions {
  /** Ends the call, which then rejects with its reason, as fetch does; the service stops its work. */
  signal?: AbortSignal;
  /** For all of the call; Infinity for none. */
  timeoutMs?: number;
}

export interface ClientOptions {
  /** Sent as `Authorization: Bearer …`. In a page, whoever opens it can read it. */
  key?: string;
  /** "NAME:PASSWORD" of a WebUI, in place of a key. */
  credentials?: string;
  /** Of every call that says no other. 300,000 unless given. */
  timeoutMs?: number;
  fetch?: typeof globalThis.fetch;
}

/** "best,negative", or a list. Modes that language models answer begin with "llm/". */
export type Modes = string | string[] | null;

export interface Choice {
  modes?: Modes;
  caption?: string;
  model?: string | null;
  llm?: string;
  wishes?: string;
  keep?: string[];
  candidates?: number;
  deep?: boolean;
}

export interface Answer {
  mode: string;
  text: string;
  model: string | null;
  score: number | null;
  elapsed_s: number;
  /** By mode: negative, tables, tags, colours, candidates, … */
  [detail: string]: unknown;
}

export interface ModeError {
  mode: string;
  error: string;
}

export interface PictureFacts {
  picture: string;
  format: string;
  width: number;
  height: number;
}

export interface Interrogation extends PictureFacts {
  answers: Answer[];
  failures: ModeError[];
  left_out: ModeError[];
}

export interface AnalyzeFields {
  /** null for all that are built in. */
  categories?: string[] | null;
  /** Of one's own, one a line. */
  labels?: string;
  top?: number;
  model?: string | null;
}

export interface Label {
  label: string;
  confidence: number;
  score: number;
  emoji: string;
}

export interface Labels extends PictureFacts {
  model: string;
  categories: Record<string, Label[]>;
}

export interface RefineFields {
  text?: string;
  image?: Image | null;
  prompt_id?: string;
  profile?: string;
  model?: string;
  wishes?: string;
  keep?: string[];
  candidates?: number;
  deep?: boolean;
  seed?: number;
}

export interface Refined extends Partial<PictureFacts> {
  answers: Answer[];
  warnings: string[];
}

export interface WildcardFields {
  recursive?: boolean;
  per_folder?: boolean;
  format?: "txt" | "yaml" | "json";
  weights?: boolean;
}

export interface Wildcards {
  files: { path: string; name: string; state: string; lines: number; is_ascii: boolean }[];
  notes: string[];
}

export interface Health {
  version: string;
  host: string;
  note: string;
  facts: Record<string, string>;
  /** What stands in a mode's way; null where it can run. */
  modes: Record<string, string | null>;
  roots: string[];
  models: { name: string; kind: string; here: boolean; command: string }[];
}

export interface Endpoint {
  name: string;
  reachable: boolean;
  usable: boolean;
  message: string;
  models: string[];
}

export interface BatchFields extends Choice {
  recursive?: boolean;
  force?: boolean;
  verify?: boolean;
  /** Captions to train on, too: what becomes of those that are there. */
  txt?: "skip" | "overwrite" | "append" | "prepend" | null;
  prefix?: string;
  suffix?: string;
  exclude?: string[];
  replace?: string[];
}

export interface Batch {
  id: string;
  kind: string;
  folder: string;
  state: "running" | "stopping" | "stopped" | "done" | "failed";
  error: string | null;
  progress: { what: string; done: number; total: number } | null;
  result: { counts: Record<string, number>; is_whole: boolean } | null;
  done: number;
  total: number | null;
  counts: Record<string, number>;
}

export type BatchEvent =
  | { id: number; kind: "planned"; todo: number; unchanged: number; modes: string[] }
  | {
      id: number;
      kind: "outcome";
      path: string;
      status: string;
      error: string | null;
      note: string | null;
      answers: Record<string, { prompt: string; score: number | null }>;
      done: number;
      total: number;
      counts: Record<string, number>;
    }
  | { id: number; kind: "warning"; text: string }
  | { id: number; kind: "left_out" | "failure"; mode: string; error: string }
  | (Omit<Batch, "kind"> & { kind: "end" });

export interface Batches {
  /** The job, which has begun. */
  start(folder: string, fields?: BatchFields, options?: CallOptions): Promise<Batch>;
  /** The newest first. */
  list(options?: CallOptions): Promise<Batch[]>;
  /** With `after` also its events from there on. */
  get(id: string, options?: CallOptions & { after?: number }): Promise<Batch & { events?: BatchEvent[] }>;
  /** "stopping" until what is under way is saved. */
  stop(id: string, options?: CallOptions): Promise<Batch>;
  /**
   * Each event once, over however many connections; the last is the job itself, of kind "end". To leave the loop
   * closes the connection; the batch goes on. No timeout unless one is given.
   */
  events(id: string, options?: CallOptions & { after?: number }): AsyncGenerator<BatchEvent, void, void>;
}

export interface AnalyzeImageFields {
  user_prompt?: string;
  deep_thinking?: boolean;
}

/** Of style, mood, composition, color_palette and subjects: the best, the likeliest first. */
export type Analysis = Record<string, { value: string; score: number }[]>;

export interface AnalyzedImage {
  success: true;
  generatedPrompt: string;
  analysis: Analysis;
  userInput: string;
  /** Why the prompt is not a language model's. */
  note?: string;
}

export type AnalysisStep =
  | { status: "analyzing" | "generating"; message: string }
  | { status: "analyzed"; analysis: Analysis }
  | { status: "complete"; generatedPrompt: string; note?: string };

/** Every failure of a call: its message is one line that can be shown, with the cause and the way out. */
export class PromptglassError extends Error {
  constructor(message: string, status?: number, options?: ErrorOptions);
  /** What the service answered; 0 where it did not. */
  status: number;
}

/** promptglass's HTTP API. A call is sent once; every one rejects with PromptglassError or the signal's reason. */
export class PromptglassClient {
  /** "http://localhost:8000" unless given; "" for the page's own origin. */
  constructor(baseUrl?: string | URL, options?: ClientOptions);
  readonly batches: Batches;
  interrogate(image: Image, fields?: Choice, options?: CallOptions): Promise<Interrogation>;
  analyze(image: Image, fields?: AnalyzeFields, options?: CallOptions): Promise<Labels>;
  refine(fields: RefineFields, options?: CallOptions): Promise<Refined>;
  wildcards(folder: string, fields?: WildcardFields, options?: CallOptions): Promise<Wildcards>;
  health(options?: CallOptions): Promise<Health>;
  endpoints(options?: CallOptions): Promise<Endpoint[]>;
  analyzeImage(image: Image, fields?: AnalyzeImageFields, options?: CallOptions): Promise<AnalyzedImage>;
  analyzeImageStream(
    image: Image,
    fields?: AnalyzeImageFields,
    options?: CallOptions,
  ): AsyncGenerator<AnalysisStep, void, void>;
}
