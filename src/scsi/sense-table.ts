import type { BlockErrno } from '../base/errors.js';

/**
 * What a unit attention, or an error that shows the known facts to be stale, asks to be looked at:
 * - `powerOn`: the unit may have lost power, and with it what its volatile cache held;
 * - `reset`: tasks are gone and mode parameters are back to the saved ones. The unit does not say
 *   that its volatile cache was kept, so this counts as a possible loss, as `powerOn` does;
 * - `nexusLost`: only this initiator's state is gone (RFC 7143 §6.3.5.1 (Loss of Nexus
 *   Notification));
 * - `cachedWriteLost`: a deferred error; a write that was acknowledged earlier has failed;
 * - `mediumChanged`, `inquiryChanged`: it may be another disk: the identity has to be read;
 * - `lunsChanged`: LUNs may have come, gone or changed places, of which each may be reported or
 *   only one;
 * - `lunGone`: the target has no such LUN; `mediumGone`: the unit has no medium; `becomingReady`,
 *   `notReady`: it cannot serve for now, cannot for long;
 * - `accessTransition`, `portStandby`, `portUnavailable`: it cannot over this port, for now or
 *   until the asymmetric access state of the port has changed;
 * - `factsStale`: a transfer does not fit what is known;
 * - `modeChanged`: write protection and cache settings have to be read;
 * - the others name what to read or tell.
 */
export type Attention =
  | 'powerOn'
  | 'reset'
  | 'nexusLost'
  | 'cachedWriteLost'
  | 'mediumChanged'
  | 'modeChanged'
  | 'capacityChanged'
  | 'lunsChanged'
  | 'lunGone'
  | 'mediumGone'
  | 'becomingReady'
  | 'accessTransition'
  | 'portStandby'
  | 'portUnavailable'
  | 'notReady'
  | 'factsStale'
  | 'inquiryChanged'
  | 'reservationsPreempted'
  | 'accessStateChanged'
  | 'commandsCleared'
  | 'thresholdReached'
  | 'other';

/**
 * - `success`: the command did its work;
 * - `retry`: send it again at once;
 * - `retryAfterDelay`: send it again after a pause;
 * - `attention`: act on `attention`, then send it again;
 * - `away`: the unit cannot serve: act on `attention`, and send it again when the unit is back;
 * - `fail`: the client gets `errno`.
 * The caller bounds all repetition; when it gives up, `errno` is what the client gets.
 */
export type VerdictAction = 'success' | 'retry' | 'retryAfterDelay' | 'attention' | 'away' | 'fail';

export type Verdict = {
  readonly action: VerdictAction;
  /** Also with `fail`, where the error shows that the known facts are stale. */
  readonly attention: Attention | null;
  readonly errno: BlockErrno;
  /** The unit has too much to do: fewer commands at a time are wanted. */
  readonly congested: boolean;
  readonly words: string;
};

/** The unit cannot serve now, and will soon. */
export function isBecomingReady(attention: Attention | null): boolean {
  return attention === 'becomingReady' || attention === 'accessTransition';
}

/** The unit cannot serve over this port, and may over another one. */
export function isServedElsewhere(attention: Attention | null): boolean {
  return attention === 'portStandby' || attention === 'portUnavailable';
}

/** The unit refuses for the state of this port; its target port group has reported states, too. */
export function isOfPort(attention: Attention | null): boolean {
  return attention === 'accessTransition' || isServedElsewhere(attention);
}

export function success(words: string): Verdict {
  return { action: 'success', attention: null, errno: 'EIO', congested: false, words };
}

export function retry(words: string): Verdict {
  return { action: 'retry', attention: null, errno: 'EIO', congested: false, words };
}

export function later(words: string, congested = false): Verdict {
  return { action: 'retryAfterDelay', attention: null, errno: 'EIO', congested, words };
}

export function notice(attention: Attention, words: string): Verdict {
  return { action: 'attention', attention, errno: 'EIO', congested: false, words };
}

export function away(attention: Attention, words: string): Verdict {
  return { action: 'away', attention, errno: 'EIO', congested: false, words };
}

export function fail(
  errno: BlockErrno,
  words: string,
  attention: Attention | null = null,
): Verdict {
  return { action: 'fail', attention, errno, congested: false, words };
}

/** Stands for every additional sense code, or every qualifier, that has no row of its own. */
export const ANY = 0x100;

type SenseRow = readonly [senseKey: number, asc: number, ascq: number, verdict: Verdict];

/**
 * The one table of sense data (codes: SPC-4 annex of additional sense codes). The most exact row
 * decides: key, ASC and ASCQ; then key and ASC; then the key alone, which every key has.
 */
export const SENSE_TABLE: readonly SenseRow[] = [
  // An unknown amount of data moved and it is not certain that all did, so it is done once more.
  [0x0, ANY, ANY, retry('no reason is given for the check condition')],

  [0x1, ANY, ANY, success('done after recovery by the device')],
  [0x1, 0x17, ANY, success('read after error correction or retries by the device')],
  [0x1, 0x18, ANY, success('read after error correction by the device')],
  [0x1, 0x5d, ANY, success('done; the device predicts its own failure')],

  [0x2, ANY, ANY, away('notReady', 'the logical unit is not ready')],
  [0x2, 0x04, ANY, away('becomingReady', 'the logical unit is not ready')],
  [0x2, 0x04, 0x00, away('becomingReady', 'the logical unit is not ready for an untold reason')],
  [0x2, 0x04, 0x01, away('becomingReady', 'the logical unit is becoming ready')],
  [0x2, 0x04, 0x02, away('notReady', 'the logical unit waits to be started')],
  [0x2, 0x04, 0x03, away('notReady', 'the logical unit needs a person to act on it')],
  [0x2, 0x04, 0x04, away('becomingReady', 'the logical unit is being formatted')],
  [0x2, 0x04, 0x05, away('becomingReady', 'the logical unit is rebuilding')],
  [0x2, 0x04, 0x06, away('becomingReady', 'the logical unit recalculates its redundancy')],
  [0x2, 0x04, 0x07, away('becomingReady', 'the logical unit is busy with an operation')],
  [0x2, 0x04, 0x08, away('becomingReady', 'the logical unit is busy with a long write')],
  [0x2, 0x04, 0x09, away('becomingReady', 'the logical unit tests itself')],
  [0x2, 0x04, 0x0a, away('accessTransition', 'the path changes its asymmetric access state')],
  [0x2, 0x04, 0x0b, away('portStandby', 'this path is on standby')],
  [0x2, 0x04, 0x0c, away('portUnavailable', 'this path is unavailable')],
  [0x2, 0x04, 0x12, away('notReady', 'the logical unit is offline')],
  [0x2, 0x04, 0x14, away('becomingReady', 'the logical unit allocates space')],
  [0x2, 0x04, 0x1b, away('becomingReady', 'the logical unit is being sanitized')],
  [0x2, 0x05, ANY, away('becomingReady', 'the logical unit does not respond to its target')],
  [0x2, 0x08, ANY, retry('the target cannot talk to the logical unit')],
  [0x2, 0x3a, ANY, away('mediumGone', 'there is no medium')],
  [0x2, 0x3e, 0x00, away('becomingReady', 'the logical unit has not configured itself yet')],
  [0x2, 0x4c, ANY, fail('EIO', 'the logical unit failed to configure itself')],

  [0x3, ANY, ANY, retry('the medium is damaged')],
  [0x3, 0x03, ANY, fail('EIO', 'the medium cannot be written here')],
  [0x3, 0x0c, ANY, fail('EIO', 'a write failed')],
  [0x3, 0x0c, 0x02, fail('EIO', 'a write failed and no spare block was found')],
  [0x3, 0x10, ANY, fail('EIO', 'the checksum of a block is wrong')],
  [0x3, 0x11, ANY, fail('EIO', 'blocks cannot be read')],
  [0x3, 0x11, 0x04, fail('EIO', 'blocks cannot be read and were not replaced')],
  [0x3, 0x13, ANY, fail('EIO', 'the address mark of a block is missing')],
  [0x3, 0x14, ANY, fail('EIO', 'a block is not on the medium')],
  [0x3, 0x31, ANY, fail('EIO', 'the format of the medium is damaged')],
  [0x3, 0x32, ANY, fail('EIO', 'no spare block is left')],

  [0x4, ANY, ANY, fail('EIO', 'the hardware of the device failed')],
  [0x4, 0x08, ANY, retry('the target cannot talk to the logical unit')],
  [0x4, 0x32, ANY, fail('EIO', 'no spare block is left')],
  [0x4, 0x3e, 0x01, fail('EIO', 'the logical unit failed')],
  [0x4, 0x3e, 0x02, retry('a timeout inside the logical unit')],
  [0x4, 0x44, ANY, fail('EIO', 'the target failed inside')],
  [0x4, 0x67, 0x0a, fail('EIO', 'the target failed to set the states of its port groups')],
  [0x4, 0x47, ANY, retry('a transfer inside the device was damaged')],
  [0x4, 0x4b, ANY, retry('the transfer of the data failed')],

  [0x5, ANY, ANY, fail('EINVAL', 'the device refuses the request')],
  [0x5, 0x1a, ANY, fail('EINVAL', 'the length of the parameter list is wrong')],
  [0x5, 0x20, ANY, fail('ENOTSUP', 'the device does not know the command')],
  [0x5, 0x20, 0x02, fail('EPERM', 'the device denies access to this initiator')],
  // The bounds were checked against the size that is known, so the size is no longer true.
  [0x5, 0x21, ANY, fail('EINVAL', 'the blocks are outside the disk', 'capacityChanged')],
  [0x5, 0x22, ANY, fail('ENOTSUP', 'the device does not do this')],
  [0x5, 0x24, ANY, fail('EINVAL', 'a field of the command is invalid for the device')],
  [0x5, 0x25, ANY, away('lunGone', 'the target has no such logical unit')],
  [0x5, 0x26, ANY, fail('EINVAL', 'a field of the parameters is invalid for the device')],
  [0x5, 0x27, ANY, fail('EPERM', 'the logical unit is write protected', 'modeChanged')],
  [0x5, 0x2c, ANY, fail('EIO', 'the command is out of sequence for the device')],
  [0x5, 0x55, ANY, later('the target lacks resources', true)],
  [0x5, 0x67, 0x0a, fail('EIO', 'the target does not set the states of its port groups')],

  [0x6, ANY, ANY, notice('other', 'the logical unit asks for attention')],
  [0x6, 0x28, ANY, notice('mediumChanged', 'the medium may have been changed')],
  [0x6, 0x29, ANY, notice('powerOn', 'the logical unit was powered on or reset')],
  [0x6, 0x29, 0x00, notice('powerOn', 'the logical unit was powered on or reset')],
  [0x6, 0x29, 0x01, notice('powerOn', 'the logical unit was powered on')],
  [0x6, 0x29, 0x02, notice('reset', 'the bus was reset')],
  [0x6, 0x29, 0x03, notice('reset', 'the logical unit or its target was reset')],
  [0x6, 0x29, 0x04, notice('powerOn', 'the device reset itself')],
  [0x6, 0x29, 0x05, notice('other', 'the transceiver went to single-ended mode')],
  [0x6, 0x29, 0x06, notice('other', 'the transceiver went to low-voltage mode')],
  [0x6, 0x29, 0x07, notice('nexusLost', 'the target forgot its state about this initiator')],
  [0x6, 0x2a, ANY, notice('modeChanged', 'parameters of the logical unit changed')],
  [0x6, 0x2a, 0x01, notice('modeChanged', 'mode parameters changed')],
  [0x6, 0x2a, 0x02, notice('other', 'log parameters changed')],
  [0x6, 0x2a, 0x03, notice('reservationsPreempted', 'reservations were preempted')],
  [0x6, 0x2a, 0x04, notice('reservationsPreempted', 'reservations were released')],
  [0x6, 0x2a, 0x05, notice('reservationsPreempted', 'registrations were preempted')],
  [0x6, 0x2a, 0x06, notice('accessStateChanged', 'the asymmetric access state changed')],
  [0x6, 0x2a, 0x07, notice('accessStateChanged', 'a change of the access state failed')],
  [0x6, 0x2a, 0x09, notice('capacityChanged', 'the capacity changed')],
  [0x6, 0x2a, 0x0a, notice('other', 'the error history changed')],
  [0x6, 0x2a, 0x10, notice('other', 'the clock of the device was set')],
  [0x6, 0x2f, ANY, notice('commandsCleared', 'commands were cleared by another initiator')],
  [0x6, 0x2f, 0x01, notice('commandsCleared', 'commands were cleared before a power loss')],
  [0x6, 0x2f, 0x02, notice('commandsCleared', 'commands were cleared by the device')],
  [0x6, 0x38, 0x07, notice('thresholdReached', 'the soft threshold of the space is reached')],
  [0x6, 0x3f, ANY, notice('inquiryChanged', 'the operating conditions of the target changed')],
  [0x6, 0x3f, 0x01, notice('inquiryChanged', 'the microcode was changed')],
  [0x6, 0x3f, 0x03, notice('inquiryChanged', 'the INQUIRY data changed')],
  [0x6, 0x3f, 0x05, notice('inquiryChanged', 'the device identifier changed')],
  [0x6, 0x3f, 0x0e, notice('lunsChanged', 'the list of logical units changed')],
  [0x6, 0x5a, ANY, notice('modeChanged', 'the operator changed the state of the device')],
  [0x6, 0x5d, ANY, notice('other', 'the device predicts its own failure')],

  [0x7, ANY, ANY, fail('EPERM', 'the data are protected')],
  [0x7, 0x20, ANY, fail('EPERM', 'the device denies access to this initiator')],
  [0x7, 0x27, ANY, fail('EPERM', 'the logical unit is write protected', 'modeChanged')],
  [0x7, 0x27, 0x01, fail('EPERM', 'the hardware is write protected', 'modeChanged')],
  [0x7, 0x27, 0x02, fail('EPERM', 'software write protection is on', 'modeChanged')],
  [0x7, 0x27, 0x07, fail('ENOSPC', 'the target has no space left for the write')],
  [0x7, 0x27, 0x08, fail('EPERM', 'the zone is read-only')],

  [0x8, ANY, ANY, fail('EIO', 'the medium is blank here')],
  [0x9, ANY, ANY, fail('EIO', 'an error only the vendor can explain')],
  [0xa, ANY, ANY, fail('EIO', 'a copy inside the target was aborted')],

  [0xb, ANY, ANY, retry('the device aborted the command')],
  [0xb, 0x10, ANY, fail('EIO', 'the protection information does not fit the data')],
  [0xb, 0x44, ANY, retry('the target failed inside')],
  [0xb, 0x47, ANY, retry('the transfer was damaged')],
  [0xb, 0x4b, ANY, retry('the transfer of the data failed')],
  [0xb, 0x4e, ANY, retry('commands overlapped')],
  [0xb, 0x55, ANY, later('the target lacks resources', true)],

  [0xc, ANY, ANY, fail('EIO', 'a reserved sense key')],
  [0xd, ANY, ANY, fail('ENOSPC', 'the end of the medium was reached')],
  [0xe, ANY, ANY, fail('EIO', 'the data differ from what is on the medium')],
  [0xf, ANY, ANY, success('completed')],
];
