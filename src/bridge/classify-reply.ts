import type { BlockErrno } from '../base/errors.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { Opcode } from '../scsi/opcodes.js';
import { isUnsupported, parseSense, type SenseData } from '../scsi/sense.js';
import type { Attention } from '../scsi/sense-table.js';
import { replyToWords, verdictOf } from '../scsi/verdict.js';
import type { BlockRequest } from './block-device.js';
import type { DiskCommand } from './disk-command.js';
import { canBeSmaller } from './request-limits.js';
import type { RetryReason } from './retry-policy.js';

/**
 * What happens next to a command that did not end with GOOD and all its bytes:
 * - `succeed`: it did its work all the same, or there was none to do;
 * - `lost`: its outcome is unknown; the request has to be submitted again;
 * - `away`: the disk cannot serve and did nothing; the request waits until it is back;
 * - `otherwise`: the disk refuses the command as it is: the request is done by other commands,
 *   zeros by data and a big transfer by smaller ones;
 * - `again`, `againLater`, `afterAttention`: the same command once more, at once or after a pause;
 *   `errno` when that has no end;
 * - `wrongTransfer`: it moved other bytes than its blocks have: the request begins anew;
 * - `fail`: the client gets `errno`.
 */
export type ReplyAction = {
  readonly next: 'succeed' | 'lost' | 'away' | 'otherwise' | 'wrongTransfer' | 'fail' | RetryReason;
  readonly errno: BlockErrno;
  readonly why: string;
  /** What the disk says has changed; to be acted upon first. */
  readonly attention: Attention | null;
  readonly congested: boolean;
};

export function classifyReply(
  command: DiskCommand,
  request: BlockRequest,
  facts: DiskFacts,
): ReplyAction {
  const { scsi } = command;
  if (scsi.outcome === 'lost' || scsi.outcome === 'aborted') return plain('lost', 'lost');
  if (scsi.outcome === 'failed') return judgeUndelivered(scsi.response);
  const sense = scsi.senseLength > 0 ? parseSense(scsi.sense.subarray(0, scsi.senseLength)) : null;
  const verdict = verdictOf(scsi.status, sense);
  const why = replyToWords(scsi.status, sense);
  const { attention, errno, congested } = verdict;
  const judged = (next: ReplyAction['next']) => ({ next, errno, why, attention, congested });
  switch (verdict.action) {
    case 'success':
      return judgeBytes(command, request, judged('succeed'));
    case 'retry':
      return judged('again');
    case 'attention':
      return judged('afterAttention');
    case 'retryAfterDelay':
      return judged('againLater');
    case 'away':
      return judged('away');
    case 'fail':
      return judged(afterFailure(command, request, { sense, facts }));
  }
}

/** In `response` where the target rejected the command PDU itself; below it is the reason. */
const REJECTED = 0x100;
/** Reasons after which the PDU must not be sent again (RFC 7143 §11.17.1 (Reason)). */
const FINAL_REJECT_REASONS: readonly number[] = [0x04, 0x05, 0x07, 0x08, 0x09];

function judgeUndelivered(response: number): ReplyAction {
  if ((response & REJECTED) === 0) {
    return plain('againLater', `the target could not run the command (response ${response})`);
  }
  const reason = response & 0xff;
  const why = `the target rejected the command (reason ${reason})`;
  return plain(FINAL_REJECT_REASONS.includes(reason) ? 'fail' : 'againLater', why);
}

/**
 * Success of the disk is success for the client only when all bytes were moved. Other bytes mean
 * that disk and we do not mean the same by a block, so that the facts are stale, or that the disk
 * did not do what it reports.
 */
function judgeBytes(command: DiskCommand, request: BlockRequest, done: ReplyAction): ReplyAction {
  const wrong = wrongTransferOf(command, request);
  if (wrong === null) return done;
  return { ...done, next: 'wrongTransfer', why: wrong, attention: 'factsStale' };
}

/** Which bytes were not moved, in words; null when all were. */
function wrongTransferOf({ scsi }: DiskCommand, request: BlockRequest): string | null {
  const { transferLength, residual, sentBytes } = scsi;
  switch (scsi.direction) {
    case 'none':
      return null;
    case 'read': {
      const got = scsi.dataIn.byteLength;
      if (request.operation !== 'read' || (got === transferLength && residual === 0)) return null;
      const offered = got - Math.min(0, residual);
      return `the disk returned ${offered} of ${transferLength} bytes and reported success`;
    }
    case 'write': {
      if (sentBytes !== transferLength) {
        return `the target reported success and asked for ${sentBytes} of ${transferLength} bytes`;
      }
      // The ranges of an UNMAP are advice: a disk that left some out has done what it wants.
      if (residual === 0 || scsi.cdb[0] === Opcode.unmap) return null;
      const taken = transferLength - residual;
      return `the disk took ${taken} of ${transferLength} bytes and reported success`;
    }
  }
}

/** ASC 24h, which is how a disk refuses a transfer that is longer than it takes. */
const INVALID_FIELD_IN_CDB = 0x24;

/** Refusals that are no failure: nothing to flush, a trim not wanted, a status not told. */
function afterFailure(
  command: DiskCommand,
  request: BlockRequest,
  context: { readonly sense: SenseData | null; readonly facts: DiskFacts },
): ReplyAction['next'] {
  const { sense, facts } = context;
  if (sense === null || !isUnsupported(sense)) return 'fail';
  if (command.isFlush) return facts.writeCacheEnabled ? 'fail' : 'succeed';
  switch (request.operation) {
    case 'trim':
    case 'blockStatus':
      return 'succeed';
    case 'writeZeroes':
      if (command.scsi.cdb[0] === Opcode.writeSame16) return 'otherwise';
      break;
    default:
  }
  return sense.asc === INVALID_FIELD_IN_CDB && canBeSmaller(command) ? 'otherwise' : 'fail';
}

function plain(next: ReplyAction['next'], why: string): ReplyAction {
  return { next, errno: 'EIO', why, attention: null, congested: false };
}
