import type { ScsiError } from '../../base/errors.js';
import type { PortGroup, PortGroupSettings } from '../settings.js';
import type { ScsiPlan } from './scsi-block.js';
import { checkCondition, invalidFieldInCdb, invalidFieldInParameterList } from './sense.js';

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

const MAINTENANCE_IN = 0xa3;
const MAINTENANCE_OUT = 0xa4;
const PORT_GROUPS = 0x0a;
const EXTENDED_HEADER = 0x20;

/** Null if commands for data are taken over a port of the group. */
export function refusalOfPort(group: PortGroup | undefined): ScsiError | null {
  const state = group?.state ?? 'optimized';
  return state === 'optimized' || state === 'nonOptimized'
    ? null
    : checkCondition(0x02, 0x04, NOT_READY[state]);
}

/**
 * REPORT and SET TARGET PORT GROUPS (MAINTENANCE IN and OUT); null for other commands. Each group
 * has one port, with the number of the group.
 */
export function planPortGroups(
  cdb: Buffer,
  groups: Map<number, PortGroup>,
  settings: PortGroupSettings,
): ScsiPlan | null {
  if (((cdb[1] ?? 0) & 0x1f) !== PORT_GROUPS) return null;
  if (cdb[0] === MAINTENANCE_IN) {
    settings.onAsked?.(cdb);
    return { dataOutBytes: 0, run: () => portGroupsData(cdb, groups, settings) };
  }
  if (cdb[0] !== MAINTENANCE_OUT || settings.canBeSet !== true) return null;
  settings.onAsked?.(cdb);
  const bytes = cdb.readUInt32BE(6);
  return {
    dataOutBytes: bytes,
    run: (list) => {
      setPortGroups(list, groups);
      return null;
    },
  };
}

/** Its parameter list: 0–3 reserved, then 4 bytes a group: 0 state (3–0), 2–3 group. */
function setPortGroups(list: Buffer, groups: Map<number, PortGroup>): void {
  for (let at = 4; at + 4 <= list.length; at += 4) {
    const tag = list.readUInt16BE(at + 2);
    if (!groups.has(tag) || ((list[at] ?? 0) & 0x0f) !== STATE_CODES.optimized)
      throw invalidFieldInParameterList();
    for (const [other, { state }] of groups) {
      if (state === 'optimized') groups.set(other, { state: 'standby' });
    }
    groups.set(tag, { state: 'optimized' });
  }
}

function portGroupsData(
  cdb: Buffer,
  groups: ReadonlyMap<number, PortGroup>,
  { extendedHeader, transitionSeconds = 0, onAnswer }: PortGroupSettings,
): Buffer {
  const isAsked = ((cdb[1] ?? 0) & 0xe0) === EXTENDED_HEADER;
  if (isAsked && extendedHeader === 'refused') throw invalidFieldInCdb();
  const isExtended = isAsked && extendedHeader !== 'ignored';
  const descriptors = [...groups].map(([tag, { state, isPreferred }]) => {
    const bytes = Buffer.alloc(12);
    bytes[0] = (isPreferred === true ? 0x80 : 0) | STATE_CODES[state];
    bytes[1] = 0xcf; // the states that are supported: all but LBA dependent
    bytes.writeUInt16BE(tag, 2);
    bytes[7] = 1;
    bytes.writeUInt16BE(tag, 10);
    return bytes;
  });
  const head = Buffer.alloc(isExtended ? 8 : 4);
  if (isExtended) {
    head[4] = 0x10;
    head[5] = transitionSeconds;
  }
  const data = Buffer.concat([head, ...descriptors]);
  data.writeUInt32BE(data.length - 4, 0);
  return (onAnswer?.(data) ?? data).subarray(0, cdb.readUInt32BE(6));
}
