import { Opcode } from './opcodes.js';
import { requireBytes } from './response-data.js';

/** MAINTENANCE IN with service action 0Ah. */
const REPORT_TARGET_PORT_GROUPS = 0x0a;
const HEADER_BYTES = 4;
const DESCRIPTOR_BYTES = 8;
const PORT_BYTES = 4;

export const ACCESS_STATES = [
  'optimized',
  'nonOptimized',
  'standby',
  'unavailable',
  'blockDependent',
  'offline',
  'transitioning',
  'unknown',
] as const;
type AccessState = (typeof ACCESS_STATES)[number];

/** ASYMMETRIC ACCESS STATE (SPC-4, REPORT TARGET PORT GROUPS parameter data). */
const STATES: ReadonlyMap<number, AccessState> = new Map([
  [0x0, 'optimized'],
  [0x1, 'nonOptimized'],
  [0x2, 'standby'],
  [0x3, 'unavailable'],
  [0x4, 'blockDependent'],
  [0xe, 'offline'],
  [0xf, 'transitioning'],
]);

/** Ports of a target that share their way to a logical unit. */
export type TargetPortGroup = {
  readonly group: number;
  readonly state: AccessState;
  readonly preferred: boolean;
  /** Relative target port identifiers. */
  readonly ports: readonly number[];
};

/** REPORT TARGET PORT GROUPS (SPC-4): 0 opcode, 1 service action, 6–9 allocation length. */
export function writeReportTargetPortGroupsCdb(cdb: Buffer, allocationBytes: number): void {
  cdb[0] = Opcode.maintenanceIn;
  cdb[1] = REPORT_TARGET_PORT_GROUPS;
  cdb.writeUInt32BE(allocationBytes, 6);
}

/**
 * Its parameter data: 0–3 length, then a descriptor a group: 0 PREF (7) and state (3–0), 2–3 group,
 * 7 number of ports, then each port with its identifier in bytes 2–3. A descriptor that is cut off
 * is left out. ScsiDataError below 4 bytes.
 */
export function decodeTargetPortGroups(data: Buffer): TargetPortGroup[] {
  requireBytes(data, HEADER_BYTES, 'REPORT TARGET PORT GROUPS data');
  const end = Math.min(data.length, HEADER_BYTES + data.readUInt32BE(0));
  const groups: TargetPortGroup[] = [];
  for (let at = HEADER_BYTES; at + DESCRIPTOR_BYTES <= end; ) {
    const portsEnd = at + DESCRIPTOR_BYTES + (data[at + 7] ?? 0) * PORT_BYTES;
    if (portsEnd > end) break;
    const ports: number[] = [];
    for (let port = at + DESCRIPTOR_BYTES; port < portsEnd; port += PORT_BYTES) {
      ports.push(data.readUInt16BE(port + 2));
    }
    const first = data[at] ?? 0;
    groups.push({
      group: data.readUInt16BE(at + 2),
      state: STATES.get(first & 0x0f) ?? 'unknown',
      preferred: (first & 0x80) !== 0,
      ports,
    });
    at = portsEnd;
  }
  return groups;
}
