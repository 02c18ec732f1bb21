import type { DiskCommand } from './disk-command.js';

/** Times a command is sent again at once, and how long one is repeated with pauses. */
export const RETRIES_MAX = 16;
export const RETRY_FOR_MS = 60_000;
const DELAY_FIRST_MS = 50;
const DELAY_MAX_MS = 2000;

/**
 * Milliseconds after which a command is sent again, 0 for at once; null when it has been tried
 * often or long enough. Counts the try. Pauses double up to two seconds.
 */
export function retryDelayMs(
  command: DiskCommand,
  how: { readonly delayed: boolean; readonly nowMs: number },
): number | null {
  if (command.retries === 0) command.firstSentAtMs = how.nowMs;
  command.retries += 1;
  if (how.nowMs - command.firstSentAtMs > RETRY_FOR_MS) return null;
  if (!how.delayed) return command.retries > RETRIES_MAX ? null : 0;
  return Math.min(DELAY_MAX_MS, DELAY_FIRST_MS * 2 ** Math.min(command.retries - 1, 10));
}
