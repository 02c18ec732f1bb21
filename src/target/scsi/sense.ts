import { ScsiError } from '../../base/errors.js';

export const STATUS = {
  good: 0x00,
  checkCondition: 0x02,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  acaActive: 0x30,
  taskAborted: 0x40,
} as const;

export type SenseFacts = {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
  readonly format?: 'fixed' | 'descriptor';
  /** Deferred error (SPC-4 §4.5.5): the sense speaks of an earlier command. */
  readonly deferred?: boolean;
  /** INFORMATION field, for instance the LBA of a medium error. */
  readonly information?: number;
};

/** Sense data of SPC-4 §4.5 (Sense data): fixed format 18 bytes, descriptor format 8 or 20. */
export function encodeSense(facts: SenseFacts): Buffer {
  return facts.format === 'descriptor' ? descriptorSense(facts) : fixedSense(facts);
}

function fixedSense(facts: SenseFacts): Buffer {
  const sense = Buffer.alloc(18);
  sense[0] = facts.deferred ? 0x71 : 0x70;
  sense[2] = facts.key;
  sense[7] = sense.length - 8;
  sense[12] = facts.asc;
  sense[13] = facts.ascq;
  if (facts.information !== undefined && facts.information <= 0xffffffff) {
    sense[0] |= 0x80;
    sense.writeUInt32BE(facts.information, 3);
  }
  return sense;
}

function descriptorSense(facts: SenseFacts): Buffer {
  const sense = Buffer.alloc(facts.information === undefined ? 8 : 20);
  sense[0] = facts.deferred ? 0x73 : 0x72;
  sense[1] = facts.key;
  sense[2] = facts.asc;
  sense[3] = facts.ascq;
  sense[7] = sense.length - 8;
  if (facts.information !== undefined) {
    // Information descriptor: type 0, ten more bytes, VALID.
    sense[9] = 0x0a;
    sense[10] = 0x80;
    sense.writeBigUInt64BE(BigInt(facts.information), 12);
  }
  return sense;
}

/** What a command handler throws to end in CHECK CONDITION. */
export function checkCondition(key: number, asc: number, ascq = 0): ScsiError {
  return new ScsiError('the target ends the command', {
    status: STATUS.checkCondition,
    senseKey: key,
    asc,
    ascq,
  });
}

export const invalidOpcode = (): ScsiError => checkCondition(0x05, 0x20);
export const lbaOutOfRange = (): ScsiError => checkCondition(0x05, 0x21);
export const invalidFieldInCdb = (): ScsiError => checkCondition(0x05, 0x24);
export const noSuchLogicalUnit = (): ScsiError => checkCondition(0x05, 0x25);
export const parameterListLengthError = (): ScsiError => checkCondition(0x05, 0x1a);
export const invalidFieldInParameterList = (): ScsiError => checkCondition(0x05, 0x26);
export const writeProtected = (): ScsiError => checkCondition(0x07, 0x27);
