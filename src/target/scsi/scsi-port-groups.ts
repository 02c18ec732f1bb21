import type { ScsiError } from '../../base/errors.js';
import type { PortGroup } from '../settings.js';
import { checkCondition } from './sense.js';

/** ASYMMETRIC ACCESS STATE (SPC-4 §6.37, REPORT TARGET PORT GROUPS parameter data). */
const STATE_CODES = {
  optimized: 0x0,
  nonOptimized: 0x1,
  standby: 0x2,
  unavailable: 0x3,
  offline: 0xe,
  transitioning: 0xf,
} as const;

/** What NOT READY says of a port in a state in which it takes no commands for data. */
const NOT_READY = { standby: 0x0b, unavailable: 0x0c, offline: 0x12, transitioning: 0x0a } as const;

const PORT_GROUPS = 0x0a;
const EXTENDED_HEADER = 0x20;

/** Null if commands for data are taken over a port of the group. */
export function refusalOfPort(group: PortGroup | undefined): ScsiError | null {
  const state = group?.state ?? 'optimized';
  return state === 'optimized' || state === 'nonOptimized'
    ? null
    : checkCondition(0x02, 0x04, NOT_READY[state]);
}

/** True for MAINTENANCE IN with the service action of REPORT TARGET PORT GROUPS. */
export function asksForPortGroups(cdb: Buffer): boolean {
  return cdb[0] === 0xa3 && ((cdb[1] ?? 0) & 0x1f) === PORT_GROUPS;
}

/** Its parameter data: each group has one port, with the number of the group. */
export function portGroupsData(cdb: Buffer, groups: ReadonlyMap<number, PortGroup>): Buffer {
  const isExtended = ((cdb[1] ?? 0) & 0xe0) === EXTENDED_HEADER;
  const descriptors = [...groups].map(([tag, { state, isPreferred }]) => {
    const bytes = Buffer.alloc(12);
    bytes[0] = (isPreferred === true ? 0x80 : 0) | STATE_CODES[state];
    bytes[1] = 0x8f; // the states that are supported: all but offline
    bytes.writeUInt16BE(tag, 2);
    bytes[7] = 1;
    bytes.writeUInt16BE(tag, 10);
    return bytes;
  });
  const head = Buffer.alloc(isExtended ? 8 : 4);
  if (isExtended) head[4] = 0x10;
  const data = Buffer.concat([head, ...descriptors]);
  data.writeUInt32BE(data.length - 4, 0);
  return data.subarray(0, cdb.readUInt32BE(6));
}
