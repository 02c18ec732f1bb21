import { Opcode } from './opcodes.js';
import { requireBytes } from './response-data.js';

/** Service action of MAINTENANCE IN (report) and of MAINTENANCE OUT (set). */
const TARGET_PORT_GROUPS = 0x0a;
/** PARAMETER DATA FORMAT of the extended header: 001b in bits 7 to 5. */
const EXTENDED_FORMAT = 0x20;
const HEADER_BYTES = 4;
const EXTENDED_HEADER_BYTES = 8;
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

export type TargetPortGroups = {
  readonly groups: readonly TargetPortGroup[];
  /** IMPLICIT TRANSITION TIME: how long a transition takes at most; null: not told. */
  readonly transitionSeconds: number | null;
  /** Bytes of the whole answer, which may have been cut to the allocation length. */
  readonly totalBytes: number;
};

/**
 * REPORT TARGET PORT GROUPS (SPC-4): 0 opcode, 1 format (7–5) and service action (4–0), 6–9
 * allocation length.
 */
export function writeReportTargetPortGroupsCdb(
  cdb: Buffer,
  {
    allocationBytes,
    isExtended,
  }: { readonly allocationBytes: number; readonly isExtended: boolean },
): void {
  cdb[0] = Opcode.maintenanceIn;
  cdb[1] = TARGET_PORT_GROUPS | (isExtended ? EXTENDED_FORMAT : 0);
  cdb.writeUInt32BE(allocationBytes, 6);
}

/** SET TARGET PORT GROUPS (SPC-4): 0 opcode, 1 service action, 6–9 parameter list length. */
export function writeSetTargetPortGroupsCdb(cdb: Buffer, parameterBytes: number): void {
  cdb[0] = Opcode.maintenanceOut;
  cdb[1] = TARGET_PORT_GROUPS;
  cdb.writeUInt32BE(parameterBytes, 6);
}

/** Its parameter list for one group: 0–3 reserved, 4 state (3–0; 0: optimized), 6–7 group. */
export function optimizedGroupParameters(group: number): Buffer {
  const list = Buffer.alloc(HEADER_BYTES + 4);
  list.writeUInt16BE(group, HEADER_BYTES + 2);
  return list;
}

/**
 * Parameter data of REPORT TARGET PORT GROUPS: 0–3 length; with the extended header 4 format
 * (6–4) and 5 implicit transition time; then a descriptor a group: 0 PREF (7) and state (3–0),
 * 2–3 group, 7 number of ports, then each port with its identifier in bytes 2–3. The header is
 * judged by its own format, since a target may ignore what was asked for: where it has none, these
 * bits are reserved bits of the first descriptor. Of a descriptor that is cut off the complete
 * ports count: LIO leaves the extended header out of its length, so the last port is missing.
 * ScsiDataError below 4 bytes.
 */
export function decodeTargetPortGroups(data: Buffer, isExtended: boolean): TargetPortGroups {
  requireBytes(data, HEADER_BYTES, 'REPORT TARGET PORT GROUPS data');
  const totalBytes = HEADER_BYTES + data.readUInt32BE(0);
  const end = Math.min(data.length, totalBytes);
  const hasExtension =
    isExtended && end >= EXTENDED_HEADER_BYTES && ((data[4] ?? 0) & 0x70) === 0x10;
  const begin = hasExtension ? EXTENDED_HEADER_BYTES : HEADER_BYTES;
  const seconds = hasExtension ? (data[5] ?? 0) : 0;
  return {
    groups: decodeGroups(data, begin, end),
    transitionSeconds: seconds === 0 ? null : seconds,
    totalBytes,
  };
}

function decodeGroups(data: Buffer, begin: number, end: number): TargetPortGroup[] {
  const groups: TargetPortGroup[] = [];
  for (let at = begin; at + DESCRIPTOR_BYTES <= end; ) {
    const portsEnd = at + DESCRIPTOR_BYTES + (data[at + 7] ?? 0) * PORT_BYTES;
    const ports: number[] = [];
    const lastPort = Math.min(portsEnd, end) - PORT_BYTES;
    for (let port = at + DESCRIPTOR_BYTES; port <= lastPort; port += PORT_BYTES) {
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
