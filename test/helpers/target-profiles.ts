/**
 * Targets that are not available here, imitated by the embedded target: the differences of each, by
 * its source code or by reports of its users.
 */
import type { SessionOptions } from '../../src/config/contract.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import type { Faults } from '../../src/target/faults.js';
import type { NegotiationSettings } from '../../src/target/negotiation.js';
import type { KeyPair } from '../../src/target/text-keys.js';
import type { EmbeddedTarget } from './embedded-target.js';

export const PROFILE_TARGET = 'iqn.2001-04.com.example:profile';
const MIB = 1 << 20;

export type TargetProfile = {
  /** The target, its version where that matters, and what it does. */
  readonly name: string;
  /** Who says so. */
  readonly source: string;
  /** The LUN that is served; null: all that can be. Default: 0. */
  readonly lun?: number | null;
  /** Other LUNs than one disk at `lun`. */
  readonly luns?: () => Record<number, TargetDisk>;
  readonly disk?: TargetDiskOptions;
  /** The hooks of one target; they may share what they remember. */
  readonly faults?: () => Faults;
  readonly negotiation?: Partial<NegotiationSettings>;
  /** Tag that SendTargets tells. */
  readonly portalGroupTag?: number;
  readonly options?: Partial<SessionOptions>;
  /** What happens instead of a broken connection. */
  readonly outage?: (target: EmbeddedTarget) => void;
  /** Quirks that the session reports, in alphabetic order. */
  readonly quirks: readonly string[];
};

const NOP_IN = 0x20;
const LOGIN_RESPONSE = 0x23;
const DATA_IN = 0x25;
const R2T = 0x31;
const REPORT_LUNS = 0xa0;
const INQUIRY = 0x12;
const TEST_UNIT_READY = 0x00;
const READ_CAPACITIES = [0x25, 0x9e];
const ILLEGAL_REQUEST = 0x05;

function profileDisk(options: TargetDiskOptions = {}): TargetDisk {
  return TargetDisk.ram({ sizeBytes: 16 * MIB, ...options });
}

/** The disks of a profile by their LUNs. */
export function disksOf(profile: TargetProfile): Record<number, TargetDisk> {
  return profile.luns?.() ?? { [profile.lun ?? 0]: profileDisk(profile.disk) };
}

/** Changes the header of each login response; `isLast` for the one that ends the login. */
function inLogins(change: (header: Buffer, isLast: boolean) => void): Faults {
  return {
    onSend: (header) => {
      const flags = header.readUInt8(1);
      const isLast = (flags & 0x83) === 0x83; // T, and NSG 3
      if ((header.readUInt8(0) & 0x3f) === LOGIN_RESPONSE) change(header, isLast);
      return undefined;
    },
  };
}

function withoutKey(keys: readonly KeyPair[], name: string): KeyPair[] {
  return keys.filter(([key]) => key !== name);
}

/** A command is refused as such, with 05h and this code. */
function illegal(asc: number) {
  return { sense: { key: ILLEGAL_REQUEST, asc, ascq: 0 } } as const;
}

const LOGIN: readonly TargetProfile[] = [
  {
    name: 'gotgt (Jiva) leaves the ISID 0 in its login responses',
    source: 'gotgt 7e7ebac pkg/port/iscsit/login.go:246',
    faults: () => inLogins((header) => header.fill(0, 8, 14)),
    quirks: ['login-isid'],
  },
  {
    name: 'gotgt gives the session no TSIH',
    source: 'gotgt 7e7ebac pkg/port/iscsit/login.go:246',
    faults: () => inLogins((header) => header.writeUInt16BE(0, 14)),
    quirks: ['login-tsih-zero'],
  },
  {
    name: 'jSCSI and iSCSIConsole give the TSIH before the last login response',
    source: 'jSCSI 6169bfe TargetLoginStage.java:216-223, iSCSIConsole 8b1c346 Login.cs:181',
    faults: () =>
      inLogins((header, isLast) => {
        if (!isLast) header.writeUInt16BE(1, 14);
      }),
    quirks: ['login-tsih-early'],
  },
  {
    name: "NetBSD's target does not count StatSN in the login",
    source: 'FreeBSD usr.sbin/iscsid/login.c, the comment on NetBSD',
    faults: () =>
      inLogins((header, isLast) => {
        if (!isLast) header.writeUInt32BE(0, 24);
      }),
    quirks: ['login-statsn'],
  },
  {
    name: 'iSCSIConsole before 1.3.3 has no TargetPortalGroupTag',
    source: 'github.com/TalAloni/iSCSIConsole/issues/1',
    faults: () => ({ onLoginKeys: (keys) => withoutKey(keys, 'TargetPortalGroupTag') }),
    quirks: ['portal-group-missing'],
  },
  {
    name: 'gotgt gives TargetPortalGroupTag late',
    source: 'gotgt 7e7ebac pkg/port/iscsit/conn.go',
    faults: () => ({
      onLoginKeys: (keys, stage) =>
        stage === 0
          ? withoutKey(keys, 'TargetPortalGroupTag')
          : [...keys, ['TargetPortalGroupTag', '1']],
    }),
    quirks: ['portal-group-late'],
  },
  {
    name: 'gotgt ends the login at a key that it does not know',
    source: 'gotgt 7e7ebac pkg/port/iscsit/login.go:175',
    faults: () => {
      let isUnknown = false;
      return {
        onLoginKeys: (keys) => {
          isUnknown = keys.some(([key]) => key === 'TaskReporting');
          return keys;
        },
        onSend: (header) =>
          isUnknown && header.readUInt8(0) === LOGIN_RESPONSE ? 'drop-connection' : undefined,
      };
    },
    quirks: ['new-keys'],
  },
  {
    name: 'SPDK proposes FirstBurstLength in the last login response',
    source: 'SPDK lib/iscsi/param.c',
    options: { initialR2T: true, immediateData: false },
    faults: () => ({
      onLoginKeys: (keys, stage) =>
        stage === 1
          ? [...withoutKey(keys, 'FirstBurstLength'), ['FirstBurstLength', '8192']]
          : keys,
    }),
    quirks: ['proposal-last'],
  },
  {
    name: 'LIO since Linux 4.11 proposes FirstBurstLength',
    source: 'iPXE 785389c2b',
    options: { initialR2T: true },
    faults: () => ({
      onLoginKeys: (keys, stage) =>
        stage === 1
          ? [...withoutKey(keys, 'FirstBurstLength'), ['FirstBurstLength', '65536']]
          : keys,
    }),
    quirks: [],
  },
  {
    name: 'the firmware of be2iscsi declares MaxRecvDataSegmentLength=0',
    source: 'Linux drivers/scsi/be2iscsi 5f28b8b, libiscsi 65ebd14 lib/login.c',
    faults: () => ({
      onLoginKeys: (keys) =>
        keys.map(([key, value]) => [key, key === 'MaxRecvDataSegmentLength' ? '0' : value]),
    }),
    quirks: ['reply-clamped'],
  },
  {
    name: 'a Cisco router sends keys of its own while it authenticates',
    source: 'open-iscsi bc23614 usr/login.c:577-596',
    faults: () => ({
      onLoginKeys: (keys, stage) =>
        stage === 0 ? [...keys, ['X-com.cisco.iscsi.draft', '20']] : keys,
    }),
    quirks: ['key-in-security'],
  },
  {
    name: "stgt answers Reject to 'no digests' and then wants them",
    source: 'iPXE bd718b211',
    negotiation: { headerDigest: ['CRC32C'], dataDigest: ['CRC32C'] },
    faults: () => {
      let isUnheard = false;
      return {
        onLoginKeys: (keys) => {
          isUnheard = keys.some(([key, value]) => key === 'HeaderDigest' && value === 'Reject');
          return keys;
        },
        // What it sends with digests that the initiator does not expect is no PDU to it.
        onSend: (header) =>
          isUnheard && header.readUInt8(0) !== LOGIN_RESPONSE ? 'drop' : undefined,
      };
    },
    quirks: ['digest-none-refused'],
  },
];

const SESSION: readonly TargetProfile[] = [
  {
    name: 'gotgt puts the number of the request in its responses',
    source: 'gotgt 7e7ebac pkg/port/iscsit/conn.go:160',
    faults: repeatedStatSN,
    quirks: ['statsn-reused'],
  },
  {
    name: 'gotgt names LUN 0 in the R2Ts of every LUN',
    source: 'gotgt 7e7ebac pkg/port/iscsit/cmd.go:482',
    lun: 3,
    faults: () => ({
      onSend: (header) => {
        if (header.readUInt8(0) === R2T) header.fill(0, 8, 16);
        return undefined;
      },
    }),
    quirks: ['r2t-lun'],
  },
  {
    name: "FreeBSD's CTL before 2014 asks for more than MaxBurstLength at once",
    source: 'FreeBSD r272613, r273310',
    // The target has 1 MiB in force and tells the initiator of less.
    options: { maxBurstLength: MIB },
    faults: () => ({
      onLoginKeys: (keys) =>
        keys.map(([key, value]) => [key, key === 'MaxBurstLength' ? '65536' : value]),
    }),
    quirks: ['r2t-burst'],
  },
  {
    name: 'Jiva gives its portal the group tag -1 in discovery and none in the login',
    source: 'github.com/openebs/jiva/issues/28',
    portalGroupTag: -1,
    faults: () => ({ onLoginKeys: (keys) => withoutKey(keys, 'TargetPortalGroupTag') }),
    quirks: ['portal-group-missing'],
  },
];

const DISKS: readonly TargetProfile[] = [
  {
    name: 'QNAP and Synology disks refuse more than 1024 sectors',
    source: 'Linux drivers/scsi/scsi_devinfo.c BLIST_MAX_1024',
    disk: { vendor: 'QNAP', product: 'iSCSI Storage' },
    faults: () => ({
      onCommand: ({ blockCount, expectedBytes }) =>
        (blockCount ?? 0) > 1024 && expectedBytes > 512 * 1024 ? illegal(0x24) : undefined,
    }),
    quirks: [],
  },
  {
    name: 'easyRAID and transtec disks have no REPORT LUNS',
    source: 'Linux drivers/scsi/scsi_devinfo.c BLIST_NOREPORTLUN',
    faults: () => ({
      onCommand: ({ opcode }) => (opcode === REPORT_LUNS ? illegal(0x20) : undefined),
    }),
    quirks: [],
  },
  {
    name: 'an MD3000i has a LUN named Universal Xport that is no disk, and one that its twin owns',
    source: 'Linux drivers/scsi/scsi_devinfo.c, device_handler/scsi_dh_rdac.c',
    lun: null,
    luns: () => ({
      0: profileDisk({ vendor: 'DELL', product: 'MD3000i', serial: 'MD-0' }),
      1: profileDisk({ vendor: 'DELL', product: 'MD3000i', serial: 'MD-1' }),
      31: profileDisk({ vendor: 'DELL', product: 'Universal Xport', serial: 'MD-X' }),
    }),
    faults: () => ({
      onCommand: ({ lun, opcode }) => {
        if (lun !== 1 || opcode === INQUIRY || opcode === REPORT_LUNS) return undefined;
        return { sense: { key: ILLEGAL_REQUEST, asc: 0x94, ascq: 0x01 } };
      },
    }),
    quirks: [],
  },
  {
    name: 'a CLARiiON answers READ CAPACITY with nothing before TEST UNIT READY',
    source: 'iPXE 57bab0ae4',
    faults: () => {
      let isReady = false;
      return {
        onCommand: ({ opcode, expectedBytes }) => {
          isReady ||= opcode === TEST_UNIT_READY;
          if (isReady || !READ_CAPACITIES.includes(opcode)) return undefined;
          return { goodWithResidual: expectedBytes };
        },
      };
    },
    quirks: [],
  },
  {
    name: 'a disk of SCSI-2 looks at one byte of the allocation length of INQUIRY',
    source: 'libiscsi c9a01c4',
    disk: { shortAllocationLength: true },
    quirks: [],
  },
  {
    name: 'FreeNAS becomes TrueNAS in the outage: another vendor, the same NAA name',
    source: 'TrueNAS middleware, etc_files/ctl.conf',
    disk: { vendor: 'FreeNAS', product: 'iSCSI Disk', naa: '6589cfc000000d5e1e61af0b6f8a2d01' },
    outage: ({ node, server }) => {
      const disk = node.targets.get(PROFILE_TARGET)?.luns.get(0);
      if (disk !== undefined) disk.vendor = 'TrueNAS';
      server.dropConnections();
    },
    quirks: [],
  },
];

const OUTAGES: readonly TargetProfile[] = [
  {
    name: 'EqualLogic asks for a logout and answers 05h/25h until the next login',
    source: 'libiscsi ac46262, on firmware 7',
    outage: ({ node }) => {
      node.faults.onCommand = () => illegal(0x25);
      node.faults.onLogin = () => {
        node.faults.onCommand = undefined;
        return undefined;
      };
      for (const connection of node.connections) {
        connection.sendAsync({ event: 1, parameters: [0, 0, 10] });
      }
    },
    quirks: [],
  },
];

export const TARGET_PROFILES: readonly TargetProfile[] = [
  ...LOGIN,
  ...SESSION,
  ...DISKS,
  ...OUTAGES,
];

/**
 * Responses of the full feature phase carry each number twice, as two requests that were sent with
 * the same ExpStatSN get it.
 */
function repeatedStatSN(): Faults {
  let first = 0;
  let sent = 0;
  return {
    onSend: (header) => {
      const opcode = header.readUInt8(0) & 0x3f;
      if (opcode === LOGIN_RESPONSE) {
        first = header.readUInt32BE(24) + 1;
        sent = 0;
        return undefined;
      }
      const hasStatus = opcode !== DATA_IN || (header.readUInt8(1) & 0x01) !== 0;
      const isQuestion = opcode === NOP_IN && header.readUInt32BE(16) === 0xffffffff;
      header.writeUInt32BE((first + Math.floor(sent / 2)) >>> 0, 24);
      if (hasStatus && !isQuestion && opcode !== R2T) sent += 1;
      return undefined;
    },
  };
}
