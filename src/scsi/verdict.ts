import { parseSense, SENSE_KEY_NAMES, type SenseData, SenseKey } from './sense.js';
import {
  ANY,
  fail,
  later,
  notice,
  retry,
  SENSE_TABLE,
  success,
  type Verdict,
} from './sense-table.js';
import { ScsiStatus, statusName } from './status.js';

/** SENSE_TABLE by key, ASC and ASCQ, with ANY where a row has it. */
const ROWS_BY_CODE: ReadonlyMap<number, Verdict> = new Map(
  SENSE_TABLE.map(([key, asc, ascq, verdict]) => [tableCode(key, asc, ascq), verdict]),
);

const GOOD = success('done');
const NO_SENSE_DATA = retry('a check condition without sense data');
const DEFERRED = notice('cachedWriteLost', 'an earlier write that was acknowledged has failed');
/** The command was ended by the deferred error and did nothing, whatever that error was worth. */
const DEFERRED_HARMLESS = retry('a deferred note about an earlier command');

const STATUS_VERDICTS: ReadonlyMap<number, Verdict> = new Map([
  [ScsiStatus.good, GOOD],
  [ScsiStatus.conditionMet, GOOD],
  [ScsiStatus.checkCondition, NO_SENSE_DATA],
  [ScsiStatus.busy, later('the logical unit is busy', true)],
  [ScsiStatus.taskSetFull, later('the command queue of the logical unit is full', true)],
  [ScsiStatus.reservationConflict, fail('EPERM', 'another initiator has reserved the unit')],
  // Commands here never set NACA: the condition is another initiator's and ends without us.
  [ScsiStatus.acaActive, later('another command has stopped the logical unit')],
  [ScsiStatus.taskAborted, retry('another initiator aborted the command')],
]);

/**
 * What a status byte (SAM-5 §5.3.1), with its sense data if it has any, means for the
 * command that got it. Statuses this product does not know fail with EIO.
 */
export function verdictOf(status: number, sense: SenseData | null): Verdict {
  if (status === ScsiStatus.checkCondition && sense !== null && sense.format !== 'none') {
    return verdictOfSense(sense);
  }
  return STATUS_VERDICTS.get(status) ?? fail('EIO', `the unit answered ${statusName(status)}`);
}

/** The same of a reply as it arrived; `sense` is empty where none came. */
export function verdictOfReply(reply: {
  readonly status: number;
  readonly sense: Buffer;
}): Verdict {
  return verdictOf(reply.status, parseSense(reply.sense));
}

/** The most exact row of the sense table; deferred errors are about an earlier command. */
export function verdictOfSense(sense: SenseData): Verdict {
  const verdict = rowOf(sense);
  if (!sense.deferred) return verdict;
  // SPC-4 §4.5: the command that a deferred error ends was not performed itself.
  if (verdict.action === 'attention') return verdict;
  return sense.senseKey === SenseKey.recoveredError || sense.senseKey === SenseKey.completed
    ? DEFERRED_HARMLESS
    : DEFERRED;
}

/** `ILLEGAL REQUEST: the blocks are outside the disk (05h/21h/00h), block 131072`. */
export function senseToWords(sense: SenseData): string {
  if (sense.format === 'none') return 'no sense data';
  const { senseKey, asc, ascq } = sense;
  const codes = [senseKey, asc, ascq].map((code) => `${hex8(code)}h`).join('/');
  const parts = [
    `${sense.deferred ? 'deferred ' : ''}${SENSE_KEY_NAMES[senseKey]}: ` +
      `${rowOf(sense).words} (${codes})`,
  ];
  if (sense.information !== null) parts.push(`block ${sense.information}`);
  if (sense.fieldPointer !== null) {
    const { in: where, byte, bit } = sense.fieldPointer;
    parts.push(`${where} byte ${byte}${bit === null ? '' : ` bit ${bit}`}`);
  }
  if (sense.progress !== null) parts.push(`${Math.floor(sense.progress * 100)} % done`);
  return parts.join(', ');
}

/** Status and sense of a reply in words, for errors and events. */
export function replyToWords(status: number, sense: SenseData | null): string {
  if (status !== ScsiStatus.checkCondition) {
    return `${statusName(status)}: ${verdictOf(status, null).words}`;
  }
  return `${statusName(status)}: ${sense === null ? 'no sense data' : senseToWords(sense)}`;
}

function rowOf(sense: SenseData): Verdict {
  const { senseKey, asc, ascq } = sense;
  return (
    ROWS_BY_CODE.get(tableCode(senseKey, asc, ascq)) ??
    ROWS_BY_CODE.get(tableCode(senseKey, asc, ANY)) ??
    ROWS_BY_CODE.get(tableCode(senseKey, ANY, ANY)) ??
    fail('EIO', 'an unknown error')
  );
}

/** Nine bits for each of ASC and ASCQ, as ANY is 100h. */
function tableCode(senseKey: number, asc: number, ascq: number): number {
  return (senseKey << 18) | (asc << 9) | ascq;
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(2, '0');
}
