/** Every failure of a call: its message is one line that can be shown, with the cause and the way out. */
export class PromptglassError extends Error {
  /** What the service answered; 0 where it did not. */
  status;

  constructor(message, status = 0, options = undefined) {
    super(message, options);
    this.name = "PromptglassError";
    this.status = status;
  }
}
