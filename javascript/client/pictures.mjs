// Pictures as they are sent: the file as it is, with the prompt that may be in it.

import { PromptglassError } from "./errors.mjs";

const MOST_BYTES = 20 * 1024 * 1024; // the service's own limit
const STEP = 0x8000; // arguments of a call

/** image: a File, a Blob, an ArrayBuffer, bytes, or base64 (alone or in a data: address), which is sent as it is. */
export async function asBase64(image) {
  if (typeof image === "string") return image;
  const bytes = await bytesOf(image);
  let text = "";
  for (let start = 0; start < bytes.length; start += STEP) {
    text += String.fromCharCode(...bytes.subarray(start, start + STEP));
  }
  return btoa(text);
}

/** The same for a form; a File keeps its name. */
export async function asBlob(image) {
  if (isBlob(image)) return admitted(image, image.size);
  const bytes = typeof image === "string" ? decoded(image) : await bytesOf(image);
  return admitted(new Blob([bytes]), bytes.length);
}

async function bytesOf(image) {
  if (isBlob(image)) return new Uint8Array(await admitted(image, image.size).arrayBuffer());
  if (ArrayBuffer.isView(image)) {
    return admitted(new Uint8Array(image.buffer, image.byteOffset, image.byteLength), image.byteLength);
  }
  // Of another realm it is no instance of ours.
  if (Object.prototype.toString.call(image) === "[object ArrayBuffer]") {
    return admitted(new Uint8Array(image), image.byteLength);
  }
  throw new PromptglassError("this is no picture. Give a File, a Blob, an ArrayBuffer, bytes, or base64.");
}

const isBlob = (image) => typeof image?.arrayBuffer === "function" && typeof image.size === "number";

function decoded(base64) {
  try {
    return Uint8Array.from(atob(base64.replace(/^data:[^,]*;base64,/i, "")), (char) => char.charCodeAt(0));
  } catch (cause) {
    throw new PromptglassError("the picture is not base64.", 0, { cause });
  }
}

/** Sent all the same, a browser would only tell of a broken connection. */
function admitted(picture, size) {
  if (size <= MOST_BYTES) return picture;
  throw new PromptglassError(`the picture is larger than ${MOST_BYTES / 2 ** 20} MB. Make it smaller.`, 413);
}
