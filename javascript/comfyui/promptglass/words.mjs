// What we say, in the languages we speak. The frontend translates settings, commands and nodes itself
// (locales/), but hands its translator to no extension.

import { locale } from "./host.mjs";

const en = {
  ago: { now: "just now", m: "{0} min ago", h: "{0} h ago", d: "{0} d ago" },
  best: "Best: a caption grown word by word (slow)",
  fast: "Fast: a caption and the nearest labels",
  classic: "Classic: a caption, medium, artist, movement, flavors",
  caption: "Caption: a sentence",
  tables: "Tables: the nearest of each word list, without a caption",
  negative: "Negative: the words least like it",
  cancel: "Cancel",
  check: "Check",
  checkAgain: "Check again",
  checking: "Asking…",
  close: "Close",
  copied: "Copied",
  copy: "Copy",
  copyAll: "Copy all {0}",
  copyCommand: "Copy the command that gets it",
  copyWildcard: "Copy {0}",
  endpoints: "Language models",
  endpointsHint: "Which can be asked by Refine and Describe?",
  evidence: "Details",
  failed: "It failed",
  foundPair: "CLIP of ComfyUI",
  gone: "It was taken out of the queue.",
  health: "Health",
  here: "here",
  interrogate: "Interrogate with promptglass",
  lines: "{0} lines",
  line: "1 line",
  lost: "ComfyUI does not answer. Is it still running?",
  models: "Models",
  moreModels: "{0} more to get",
  negativeOf: "negative",
  next: "Next picture",
  noPair: "no matching pair of files",
  noPairHint:
    "Put clip-vit-large-patch14.safetensors into models/text_encoders and models/clip_vision; interrogating then costs no second model.",
  noPicture: "Select a node that shows a picture.",
  noPromptNode: "This workflow has no node for a prompt: add a CLIP Text Encode, or copy the text.",
  noResults: "Nothing interrogated yet",
  noResultsHint: "Right-click a node that shows a picture and choose “Interrogate with promptglass”, or select it and click the eye above it.",
  noWildcards: "None written yet: run the node “Write wildcards”.",
  notCopied: "Cannot copy",
  position: "{0} / {1}",
  previous: "Previous picture",
  queued: "Waiting for ComfyUI…",
  refresh: "Refresh",
  results: "Results",
  running: "Looking…",
  score: "How close CLIP finds text and picture",
  showHealth: "What is here?",
  silent: "{0} that do not answer",
  toPromptNode: "To prompt node",
  toWhich: "To which node?",
  unusable: "cannot be asked",
  usable: "ready",
  wildcards: "Wildcards",
  written: "Now in “{0}”",
};

const zh = {
  ago: { now: "刚刚", m: "{0} 分钟前", h: "{0} 小时前", d: "{0} 天前" },
  best: "最佳：逐词逼近图像的描述（较慢）",
  fast: "快速：描述加最接近的标签",
  classic: "经典：描述、媒介、艺术家、流派、风格词",
  caption: "描述：一句话",
  tables: "词表：每个词表中最接近的词，无需描述模型",
  negative: "反向：与图像最不相似的词",
  cancel: "取消",
  check: "检查",
  checkAgain: "重新检查",
  checking: "正在询问…",
  close: "关闭",
  copied: "已复制",
  copy: "复制",
  copyAll: "复制全部 {0} 条",
  copyCommand: "复制下载命令",
  copyWildcard: "复制 {0}",
  endpoints: "语言模型",
  endpointsHint: "“润色”和“描述”节点可以使用哪些服务？",
  evidence: "详情",
  failed: "失败",
  foundPair: "ComfyUI 自带的 CLIP",
  gone: "任务已从队列中移除。",
  health: "状态",
  here: "已就绪",
  interrogate: "用 promptglass 反推提示词",
  lines: "{0} 行",
  line: "1 行",
  lost: "ComfyUI 没有响应，它还在运行吗？",
  models: "模型",
  moreModels: "还有 {0} 个可下载",
  negativeOf: "反向提示词",
  next: "下一张",
  noPair: "没有成对的文件",
  noPairHint:
    "把 clip-vit-large-patch14.safetensors 放进 models/text_encoders 和 models/clip_vision，反推时就不必再加载另一个模型。",
  noPicture: "请先选中一个显示图像的节点。",
  noPromptNode: "当前工作流没有提示词节点：请添加“CLIP文本编码”，或直接复制文本。",
  noResults: "还没有反推结果",
  noResultsHint: "右键点击显示图像的节点，选择“用 promptglass 反推提示词”；或选中节点后点击上方的眼睛图标。",
  noWildcards: "尚未写入：请运行“写入通配符”节点。",
  notCopied: "无法复制",
  position: "{0} / {1}",
  previous: "上一张",
  queued: "等待 ComfyUI…",
  refresh: "刷新",
  results: "结果",
  running: "正在看图…",
  score: "CLIP 认为文字与图像的接近程度",
  showHealth: "查看状态",
  silent: "{0} 个没有响应",
  toPromptNode: "填入提示词节点",
  toWhich: "填入哪个节点？",
  unusable: "不可用",
  usable: "可用",
  wildcards: "通配符",
  written: "已填入“{0}”",
};

/** The words for a key in the frontend's language; {0}, {1} stand for the values. */
export function say(key, ...values) {
  const words = locale().startsWith("zh") ? zh : en;
  return filled(words[key] ?? en[key], values);
}

/** How long ago something was, roughly. */
export function ago(time) {
  const words = (locale().startsWith("zh") ? zh : en).ago;
  const minutes = Math.floor((Date.now() - new Date(time).getTime()) / 60000);
  if (!(minutes >= 1)) return words.now;
  if (minutes < 60) return filled(words.m, [minutes]);
  return minutes < 60 * 24
    ? filled(words.h, [Math.floor(minutes / 60)])
    : filled(words.d, [Math.floor(minutes / 60 / 24)]);
}

const filled = (text, values) => text.replace(/\{(\d)\}/g, (_, position) => values[position] ?? "");
