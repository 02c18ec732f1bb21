import type { BlockRequest } from './block-device.js';
import type { DiskCommand } from './disk-command.js';

/** Times in a row a command is sent again at once, and how long one is repeated with pauses. */
const RETRIES_MAX = 16;
const RETRY_FOR_MS = 60_000;
const DELAY_FIRST_MS = 50;
const DELAY_MAX_MS = 2000;

/**
 * Times a request is done again because a transfer moved other bytes than its blocks have. The
 * first look at the disk mends facts that were stale, the second one a disk that changed under the
 * first; after four a disk does not do what it reports, and writing more changes nothing.
 */
const WRONG_TRANSFERS_MAX = 4;
const WRONG_TRANSFER_PAUSE_FIRST_MS = 100;

/** Why a command is sent again: the judgement with the same name. */
export type RetryReason = 'again' | 'againLater' | 'afterAttention';

/**
 * Milliseconds after which a command is sent again, 0 for at once; null when it has been tried
 * often or long enough. Counts the try.
 *
 * Tries at once are counted in a row, so that a disk that was becoming ready for a while still has
 * all of them, or one after all that time. A unit attention is news and no failure: only a series
 * that is both longer and slower than any disk's news ends the request. It is counted in the
 * request, because each attention may lead to a look, after which the request begins anew.
 */
export function retryDelayMs(
  command: DiskCommand,
  request: BlockRequest,
  how: { readonly reason: RetryReason; readonly nowMs: number },
): number | null {
  const { reason, nowMs } = how;
  if (command.retries === 0) command.firstSentAtMs = nowMs;
  command.retries += 1;
  const isLong = nowMs - command.firstSentAtMs > RETRY_FOR_MS;
  switch (reason) {
    case 'again':
      command.retriesAtOnce += 1;
      if (command.retriesAtOnce > (isLong ? 1 : RETRIES_MAX)) return null;
      return 0;
    case 'againLater':
      command.retriesAtOnce = 0;
      return isLong ? null : pauseMs(DELAY_FIRST_MS, command.retries);
    case 'afterAttention': {
      if (request.attentions === 0) request.attendedFirstAtMs = nowMs;
      request.attentions += 1;
      const extra = request.attentions - RETRIES_MAX;
      if (extra <= 0) return 0;
      if (nowMs - request.attendedFirstAtMs > RETRY_FOR_MS) return null;
      return pauseMs(DELAY_FIRST_MS, extra);
    }
  }
}

/**
 * Milliseconds after which a request with a wrong transfer is done again from the start; null when
 * that happened too often. Counts it, over looks at the disk and losses of the link.
 */
export function wrongTransferDelayMs(request: BlockRequest): number | null {
  request.wrongTransfers += 1;
  const { wrongTransfers } = request;
  if (wrongTransfers > WRONG_TRANSFERS_MAX) return null;
  return wrongTransfers === 1 ? 0 : pauseMs(WRONG_TRANSFER_PAUSE_FIRST_MS, wrongTransfers - 1);
}

/** Pauses double up to two seconds. */
function pauseMs(firstMs: number, times: number): number {
  return Math.min(DELAY_MAX_MS, firstMs * 2 ** Math.min(times - 1, 10));
}
