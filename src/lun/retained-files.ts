import * as z from 'zod';
import { crc32c } from '../base/crc32c.js';

/**
 * Files of retained writes, by name: `<session>-<LUN>.<owner>.<count>.index` is the journal of one
 * LUN, and `<owner>.slabs` has the bytes that the journals of its owner name. An owner is a
 * process, by a random number; it locks its slab file as long as it lives. The name of a journal
 * that was set aside ends in `.stale`.
 */
const JOURNAL_NAME = /^([0-9a-f]{16})-(\d{1,8})\.([0-9a-f]{16})\.\d{1,8}\.index$/;
const SLABS_NAME = /^([0-9a-f]{16})\.slabs$/;
const STALE_NAME = /^[0-9a-f]{16}-\d{1,8}\.([0-9a-f]{16})\.\d{1,8}\.index\.stale$/;

export type JournalName = {
  readonly name: string;
  readonly sessionId: string;
  readonly lun: number;
  readonly owner: string;
};

export type FoundFiles = {
  readonly journals: readonly JournalName[];
  /** Owners of slab files. */
  readonly owners: readonly string[];
  readonly stale: readonly { readonly name: string; readonly owner: string }[];
};

export function journalName(of: Omit<JournalName, 'name'>, count: number): string {
  return `${of.sessionId}-${of.lun}.${of.owner}.${count}.index`;
}

export function slabsName(owner: string): string {
  return `${owner}.slabs`;
}

/** Sorts the names of a directory; others are ignored. */
export function filesAmong(names: readonly string[]): FoundFiles {
  const journals: JournalName[] = [];
  const owners: string[] = [];
  const stale: { name: string; owner: string }[] = [];
  for (const name of names) {
    const [, sessionId, lun, owner] = JOURNAL_NAME.exec(name) ?? [];
    if (sessionId !== undefined && owner !== undefined) {
      journals.push({ name, sessionId, lun: Number(lun), owner });
    }
    const ofSlabs = SLABS_NAME.exec(name)?.[1];
    if (ofSlabs !== undefined) owners.push(ofSlabs);
    const ofStale = STALE_NAME.exec(name)?.[1];
    if (ofStale !== undefined) stale.push({ name, owner: ofStale });
  }
  return { journals, owners, stale };
}

/**
 * What a journal begins with. Little-endian words, then the facts as JSON:
 *
 *     0 magic (written last)   4 version   8 not whole (0 or 1)   12 bytes of JSON   16 its CRC32C
 */
export const PREAMBLE_BYTES = 4096;
const JSON_AT = 20;
const MAGIC = 0x4952_6e62;
const VERSION = 1;
const NOT_WHOLE_AT = 8;

const factsSchema = z.strictObject({
  bootId: z.string(),
  sessionId: z.string(),
  lun: z.number(),
  slabs: z.string(),
  indexBytes: z.number(),
  /** The disk is a kernel device, without which no process comes back to it. */
  isDevice: z.boolean(),
  /** On the clock of the boot, in nanoseconds. */
  madeAtNs: z.string().regex(/^\d{1,20}$/),
});

export type JournalFacts = Readonly<z.output<typeof factsSchema>>;

/** `memory` is zeros. A process that is killed before `beginJournal` has begun no journal. */
export function writePreamble(memory: Buffer, facts: JournalFacts): void {
  const text = Buffer.from(JSON.stringify(facts));
  text.copy(memory, JSON_AT);
  memory.writeUInt32LE(VERSION, 4);
  memory.writeUInt32LE(text.length, 12);
  memory.writeInt32LE(crc32c(text, 0, text.length, 0), 16);
}

/** From now on it says what its process has retained. */
export function beginJournal(memory: Buffer): void {
  const words = new Int32Array(memory.buffer, memory.byteOffset, 1);
  Atomics.store(words, 0, MAGIC);
}

/** The process that comes next must not rely on the journal. */
export function markNotWhole(memory: Buffer): void {
  memory.writeUInt32LE(1, NOT_WHOLE_AT);
}

export type Preamble =
  /** Its process was killed before it was one. */
  | { readonly kind: 'unbegun' }
  | { readonly kind: 'facts'; readonly facts: JournalFacts }
  | { readonly kind: 'stale'; readonly why: string };

export function readPreamble(memory: Buffer): Preamble {
  if (memory.length < PREAMBLE_BYTES) return stale('it is too short');
  if (memory.readInt32LE(0) === 0) return { kind: 'unbegun' };
  if (memory.readInt32LE(0) !== MAGIC) return stale('it is no journal of retained writes');
  const version = memory.readUInt32LE(4);
  if (version !== VERSION)
    return stale(`it is of version ${version}, and this one reads ${VERSION}`);
  const length = memory.readUInt32LE(12);
  const end = JSON_AT + length;
  if (end > PREAMBLE_BYTES || crc32c(memory, JSON_AT, end, 0) !== memory.readInt32LE(16)) {
    return stale('its beginning is damaged');
  }
  const parsed = factsSchema.safeParse(jsonOf(memory.toString('utf8', JSON_AT, end)));
  if (!parsed.success) return stale('its beginning is of another form');
  if (memory.readUInt32LE(NOT_WHOLE_AT) !== 0) {
    return stale('its process had no room for all that it had to hold');
  }
  return { kind: 'facts', facts: parsed.data };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function stale(why: string): Preamble {
  return { kind: 'stale', why };
}

/** Length of the file of a journal. */
export function journalBytes(indexBytes: number): number {
  return Math.ceil((PREAMBLE_BYTES + indexBytes) / PREAMBLE_BYTES) * PREAMBLE_BYTES;
}
