import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import type { SessionOptions } from '../../src/config/contract.js';
import { exitCodeOf } from '../../src/errors/exit-codes.js';
import { discover } from '../../src/session/discovery-session.js';
import {
  type Behaviour,
  FILL,
  HOSTILE_NAME,
  type HostileLink,
  type HostileOptions,
  HostileTarget,
  isRead,
  isWrite,
} from '../helpers/hostile-target.js';
import { InProcessDisk, SESSION_OPTIONS } from '../helpers/in-process.js';
import {
  FROM,
  type InitiatorPdu,
  linesOf,
  OP,
  operationalAnswer,
  type TargetPdu,
  textOf,
} from '../helpers/peer-pdu.js';
import { run } from '../helpers/served-disk.js';

const F = 0x80;
const MARK = 0x40000;
const URL = { targetName: HOSTILE_NAME, lun: 0 };

/** Reads of the place that the client reads, not of the way to it. */
const isMarked = (pdu: InitiatorPdu) =>
  pdu.opcode === FROM.scsiCommand &&
  isRead(pdu.header[32]!) &&
  (pdu.header.readUInt32BE(34) === MARK / 512 || pdu.header.readUInt32BE(38) === MARK / 512);

const isWriteCommand = (pdu: InitiatorPdu) =>
  pdu.opcode === FROM.scsiCommand && isWrite(pdu.header[32]!);

/** Does `act` for each PDU that is so. */
const when =
  (isSo: (pdu: InitiatorPdu) => boolean, act: (pdu: InitiatorPdu, link: HostileLink) => void) =>
  (): Behaviour =>
  (pdu, link) => {
    if (!isSo(pdu)) return false;
    act(pdu, link);
    return true;
  };

/** Does `act` for the first PDU that is so. */
const once =
  (isSo: (pdu: InitiatorPdu) => boolean, act: (pdu: InitiatorPdu, link: HostileLink) => void) =>
  (): Behaviour => {
    let isDone = false;
    return (pdu, link) => {
      if (isDone || !isSo(pdu)) return false;
      isDone = true;
      act(pdu, link);
      return true;
    };
  };

/** First `act`, then what a correct target does. */
const before = (act: (pdu: InitiatorPdu, link: HostileLink) => void) =>
  when(isMarked, (pdu, link) => {
    act(pdu, link);
    link.command(pdu);
  });

const dataIn = (pdu: InitiatorPdu, fields: Partial<TargetPdu> = {}): TargetPdu => ({
  opcode: OP.dataIn,
  itt: pdu.itt,
  flags: 0,
  ...fields,
});

const r2t = (pdu: InitiatorPdu, at: number, length: number, number = 0) => ({
  opcode: OP.r2t,
  itt: pdu.itt,
  ttt: 0x100 + number,
  lun: pdu.lun,
  word36: number,
  word40: at,
  word44: length,
});

const securityAnswer = ['TargetPortalGroupTag=1', 'AuthMethod=None'];
/** Flags of an answer that stays in its stage, and of one that goes on in the next PDU. */
const withoutT = (pdu: InitiatorPdu) => ({ flags: pdu.flags & 0x0c });
const withC = (pdu: InitiatorPdu) => ({ flags: (pdu.flags & 0x0c) | 0x40 });
const isSecurity = (pdu: InitiatorPdu) => (pdu.flags & 0x0c) === 0;

type Case = {
  readonly keys?: HostileOptions['keys'];
  readonly target?: Partial<HostileOptions>;
  readonly login?: () => Behaviour;
  readonly fullFeature?: () => Behaviour;
  readonly options?: Partial<SessionOptions>;
};

/** Reads, writes and reads through the whole stack; returns the events. */
async function use(one: Case): Promise<readonly { event: string; to?: string }[]> {
  await using target = await HostileTarget.start({
    ...one.target,
    ...(one.keys === undefined ? {} : { keys: one.keys }),
    ...(one.login === undefined ? {} : { login: one.login() }),
    ...(one.fullFeature === undefined ? {} : { fullFeature: one.fullFeature() }),
  });
  await using disk = await InProcessDisk.start({ ...URL, port: target.port }, one.options);
  const commands = [
    `read -P 0x${FILL.toString(16)} ${MARK} 16k`,
    'write -P 0x5c 8k 24k',
    'read -P 0x5c 8k 24k',
  ];
  const args = commands.flatMap((command) => ['-c', command]);
  const told = await run('qemu-io', ['-f', 'raw', ...args, disk.uri], { timeoutMs: 40_000 });
  if (/verification failed|error|failed/i.test(told)) throw new Error(told);
  const written = target.disk.subarray(8 << 10, 32 << 10);
  if (!written.equals(Buffer.alloc(24 << 10, 0x5c))) throw new Error('the disk has other bytes');
  return disk.events as readonly { event: string; to?: string }[];
}

const wentAway = (events: readonly { event: string; to?: string }[]) =>
  events.filter((event) => event.to === 'reconnecting').length;

const LEGAL: Readonly<Record<string, Case>> = {
  'another ISID in the answers to a login (gotgt)': atLogin((pdu, link) => {
    const lines = isSecurity(pdu) ? securityAnswer : operationalAnswer({}, linesOf(pdu));
    const bytes = link.encodeLogin(pdu, lines);
    bytes.fill(0, 8, 14);
    writeLogin(pdu, link, bytes);
  }),
  'no portal group tag (Jiva)': atLogin((pdu, link) => {
    const lines = isSecurity(pdu) ? ['AuthMethod=None'] : operationalAnswer({}, linesOf(pdu));
    link.answerLogin(pdu, lines);
  }),
  'a TSIH of 0 (gotgt)': atLogin((pdu, link) => {
    const lines = isSecurity(pdu) ? securityAnswer : operationalAnswer({}, linesOf(pdu));
    const bytes = link.encodeLogin(pdu, lines);
    bytes.writeUInt16BE(0, 14);
    writeLogin(pdu, link, bytes);
  }),
  'NotUnderstood for a key all must know': atLogin((pdu, link) => {
    const keys = { MaxBurstLength: 'NotUnderstood' };
    link.answerLogin(pdu, isSecurity(pdu) ? securityAnswer : operationalAnswer(keys, linesOf(pdu)));
  }),
  'text without its zero byte': atLogin((pdu, link) => {
    const lines = isSecurity(pdu) ? securityAnswer : operationalAnswer({}, linesOf(pdu));
    link.answerLogin(pdu, [], { data: textOf(lines).subarray(0, -1) });
  }),
  'a login in more rounds than it needs': {
    login: () => {
      let left: string[] | null = null;
      return (pdu, link) => {
        const isAgain = pdu.data.length === 0;
        if (isSecurity(pdu)) {
          link.answerLogin(pdu, isAgain ? [] : securityAnswer, isAgain ? {} : withoutT(pdu));
          return true;
        }
        left ??= operationalAnswer({}, linesOf(pdu));
        const isLast = left.length === 0;
        link.answerLogin(pdu, left.splice(0, 5), isLast ? {} : withoutT(pdu));
        return true;
      };
    },
  },
  'a login answer of one key in each PDU, with the C bit': {
    login: () => {
      let left: string[] | null = null;
      return (pdu, link) => {
        if (isSecurity(pdu)) return false;
        left ??= operationalAnswer({}, linesOf(pdu));
        const lines = left.splice(0, 1);
        link.answerLogin(pdu, lines, left.length > 0 ? withC(pdu) : {});
        return true;
      };
    },
  },
  'a pair cut in its middle by the C bit': {
    login: () => {
      let left: Buffer | null = null;
      return (pdu, link) => {
        if (isSecurity(pdu)) return false;
        left ??= textOf(operationalAnswer({}, linesOf(pdu)));
        const data = left.subarray(0, 57);
        left = left.subarray(57);
        link.answerLogin(pdu, [], { data, ...(left.length > 0 ? withC(pdu) : {}) });
        return true;
      };
    },
  },
  'numbers in hexadecimal': { keys: { MaxBurstLength: '0x10000', FirstBurstLength: '0X1000' } },
  'unknown keys': {
    login: () => {
      let isAsked = false;
      return (pdu, link) => {
        if (isSecurity(pdu) || isAsked) return false;
        isAsked = true;
        link.answerLogin(pdu, ['X-com.example.colour=blue'], { flags: pdu.flags & 0x0c });
        return true;
      };
    },
  },
  'proposals of its own': {
    login: () => {
      let isAsked = false;
      return (pdu, link) => {
        if (isSecurity(pdu) || isAsked) return false;
        isAsked = true;
        link.answerLogin(pdu, ['TaskReporting=RFC3720', 'IFMarker=No', 'OFMarker=No'], {
          flags: pdu.flags & 0x0c,
        });
        return true;
      };
    },
  },
  'portal group 0': {
    login: when(isSecurity, (pdu, link) =>
      link.answerLogin(pdu, ['TargetPortalGroupTag=0', 'AuthMethod=None']),
    ),
  },
  'StatSN that wraps at once': { target: { firstStatSN: 0xfffffffe } },
  'a window of one command': { target: { windowSize: 1 } },
  'a window that is closed and opened by NOP-In': {
    target: { windowSize: 1 },
    fullFeature: before((_pdu, link) => {
      link.send({ opcode: OP.nopIn, maxCmdSN: link.expCmdSN - 1 });
      link.send({ opcode: OP.nopIn });
    }),
  },
  'a MaxCmdSN that shrinks': {
    fullFeature: before((_pdu, link) => link.send({ opcode: OP.nopIn, maxCmdSN: link.expCmdSN })),
  },
  'the smallest bursts and segments': {
    keys: { MaxBurstLength: '512', FirstBurstLength: '512', MaxRecvDataSegmentLength: '512' },
    fullFeature: when(isWriteCommand, (pdu, link) => {
      const left = link.beginWrite(pdu);
      const start = pdu.data.length;
      const count = left / 512;
      for (let index = 0; index < count; index += 1) {
        link.send(r2t(pdu, start + index * 512, 512, index));
      }
    }),
  },
  'Data-In of 100 bytes each': {
    fullFeature: when(isMarked, (pdu, link) => link.sendData(pdu, link.bytesOf(pdu), 100)),
  },
  'Data-In without bytes among the others': {
    fullFeature: when(isMarked, (pdu, link) => {
      const data = link.bytesOf(pdu);
      const rest = { flags: F, word36: 3, word40: 512, data: data.subarray(512) };
      link.send(dataIn(pdu), dataIn(pdu, { word36: 1, data: data.subarray(0, 512) }));
      link.send(dataIn(pdu, { word36: 2, word40: 512 }), dataIn(pdu, rest));
      link.respond(pdu, { word36: 4 });
    }),
  },
  'status with the last Data-In': {
    fullFeature: when(isMarked, (pdu, link) =>
      link.send(dataIn(pdu, { flags: F | 1, data: link.bytesOf(pdu) })),
    ),
  },
  'status with a Data-In of no bytes': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { data: link.bytesOf(pdu) }));
      link.send(dataIn(pdu, { flags: F | 1, word36: 1, word40: pdu.word20 }));
    }),
  },
  'a sequence of its own for each Data-In, with the A bit': {
    fullFeature: when(isMarked, (pdu, link) => {
      const data = link.bytesOf(pdu);
      const half = data.length / 2;
      const fields = { flags: F | 0x40, ttt: 7, lun: pdu.lun };
      link.send(dataIn(pdu, { ...fields, data: data.subarray(0, half) }));
      const second = { word36: 1, word40: half, data: data.subarray(half) };
      link.send(dataIn(pdu, { ...fields, ...second }));
      link.respond(pdu, { word36: 2 });
    }),
  },
  'a zero Target Transfer Tag and LUN in Data-In': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F, ttt: 0, lun: [0, 0], data: link.bytesOf(pdu) }));
      link.respond(pdu);
    }),
  },
  'ExpDataSN left 0': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      link.respond(pdu, { word36: 0 });
    }),
  },
  'an ExpDataSN above the Data-In that came, with all bytes': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      link.respond(pdu, { word36: 9 });
    }),
  },
  'misnumbered Data-In without bytes': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { word36: 7 }), dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      link.respond(pdu, { word36: 1 });
    }),
  },
  'status in a Data-In without the F bit': {
    fullFeature: when(isMarked, (pdu, link) =>
      link.send(dataIn(pdu, { flags: 1, data: link.bytesOf(pdu) })),
    ),
  },
  'CHECK CONDITION in a Data-In at first': {
    fullFeature: once(isMarked, (pdu, link) =>
      link.send(dataIn(pdu, { flags: F | 1, byte3: 2, data: Buffer.alloc(pdu.word20) })),
    ),
  },
  'CHECK CONDITION without sense at first': {
    fullFeature: once(isMarked, (pdu, link) => link.respond(pdu, { byte3: 2 })),
  },
  'both residual bits of a read, with all bytes': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      link.respond(pdu, { flags: F | 6, word36: 1, word44: 1 });
    }),
  },
  'both residual bits of a read without its bytes, at first': {
    fullFeature: once(isMarked, (pdu, link) => link.respond(pdu, { flags: F | 6 })),
  },
  'both residual bits of a write that was not done, at first': {
    keys: { InitialR2T: 'Yes', ImmediateData: 'Yes' },
    fullFeature: once(isWriteCommand, (pdu, link) => link.respond(pdu, { flags: F | 6 })),
  },
  'AsyncEvent 5 without FastAbort': {
    fullFeature: before((_pdu, link) => link.send({ opcode: OP.async, word36: 5 << 24, ttt: 0 })),
  },
  'a NOP-In with both tags': {
    fullFeature: before((_pdu, link) => link.send({ opcode: OP.nopIn, itt: 1, ttt: 1 })),
  },
  'an R2T over MaxBurstLength (older FreeBSD)': {
    keys: { InitialR2T: 'Yes', MaxBurstLength: '4096', FirstBurstLength: '4096' },
    fullFeature: when(isWriteCommand, (pdu, link) =>
      link.send(r2t(pdu, pdu.data.length, link.beginWrite(pdu))),
    ),
  },
  'R2Ts with any R2TSN': {
    keys: { InitialR2T: 'Yes', FirstBurstLength: '4096', MaxOutstandingR2T: '4' },
    fullFeature: when(isWriteCommand, (pdu, link) => {
      const half = link.beginWrite(pdu) / 2;
      link.send({ ...r2t(pdu, pdu.data.length, half, 5) });
      link.send({ ...r2t(pdu, pdu.data.length + half, half, 2) });
    }),
  },
  'additional header segments': {
    fullFeature: before((_pdu, link) => link.send({ opcode: OP.nopIn, ahs: Buffer.alloc(8, 1) })),
  },
  'padding that is not zero': {
    fullFeature: before((_pdu, link) => {
      const bytes = link.encode({ opcode: OP.async, word36: 248 << 24, data: Buffer.alloc(1) });
      bytes.fill(0xff, bytes.length - 3);
      link.write(bytes);
    }),
  },
  'reserved fields that are not zero': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F | 0x38, byte2: 9, byte3: 9, data: link.bytesOf(pdu) }));
      link.respond(pdu, { flags: F | 0x41, word36: 1, word40: 77 });
    }),
  },
  'a stream of single bytes': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.socket.setNoDelay(true);
      const data = link.encode(dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      for (const byte of data.subarray(0, 200)) link.write(Buffer.of(byte));
      link.write(data.subarray(200));
      link.respond(pdu, { word36: 1 });
    }),
  },
  'a ping before each answer': {
    fullFeature: before((_pdu, link) => link.send({ opcode: OP.nopIn, ttt: 5, lun: [0, 0] })),
  },
  'five hundred NOP-In in a row': {
    fullFeature: before((_pdu, link) => {
      for (let count = 0; count < 500; count += 1) link.send({ opcode: OP.nopIn });
    }),
  },
  'events of vendors, of SCSI, and unassigned ones': {
    fullFeature: before((_pdu, link) => {
      for (const event of [0, 6, 77, 247, 250]) {
        link.send({ opcode: OP.async, word36: (event << 24) >>> 0, ttt: 0 });
      }
    }),
  },
  'rejects of no known task': {
    fullFeature: before((_pdu, link) =>
      link.send({ opcode: OP.reject, byte2: 9, ttt: 0, data: Buffer.alloc(48, 5) }),
    ),
  },
  'responses with unknown tags': {
    fullFeature: before((pdu, link) => {
      const itt = pdu.itt ^ 0x5000;
      link.send({ opcode: OP.dataIn, itt, flags: 0, data: Buffer.alloc(512, 1) });
      link.send({ opcode: OP.scsiResponse, itt, ttt: 0 });
      link.send({ ...r2t(pdu, 0, 512), itt });
      link.send({ opcode: OP.taskManagement, itt, ttt: 0 });
      link.send({ opcode: OP.text, itt });
    }),
  },
  'a StatSN that was used before (gotgt)': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send(dataIn(pdu, { flags: F, data: link.bytesOf(pdu) }));
      link.respond(pdu, { statSN: (link.statSN - 1) >>> 0, word36: 1 });
    }),
  },
  'PDUs in another order than their StatSN (istgt)': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.send({ opcode: OP.async, word36: 250 << 24, statSN: (link.statSN + 1) >>> 0, ttt: 0 });
      link.command(pdu);
      link.statSN = (link.statSN + 1) >>> 0;
    }),
  },
  'an answer that is sent twice': {
    fullFeature: when(isMarked, (pdu, link) => {
      link.command(pdu);
      link.respond(pdu, { statSN: (link.statSN - 1) >>> 0 });
    }),
  },
  'answers in the reverse order': {
    fullFeature: () => {
      const waiting: InitiatorPdu[] = [];
      return (pdu, link) => {
        if (pdu.opcode !== FROM.scsiCommand || isWriteCommand(pdu)) return false;
        waiting.push(pdu);
        setTimeout(() => {
          for (let one = waiting.pop(); one; one = waiting.pop()) link.command(one);
        }, 5);
        return true;
      };
    },
  },
  'several R2Ts at once': {
    keys: { MaxOutstandingR2T: '4' },
    fullFeature: when(isWriteCommand, (pdu, link) => {
      const left = link.beginWrite(pdu);
      const start = pdu.data.length;
      const half = left / 2;
      link.send(r2t(pdu, start, half, 0), r2t(pdu, start + half, half, 1));
    }),
  },
  'BUSY and TASK SET FULL at first': {
    fullFeature: () => {
      const statuses = [0x08, 0x28];
      return (pdu, link) => {
        const status = isMarked(pdu) ? statuses.shift() : undefined;
        if (status === undefined) return false;
        link.respond(pdu, { byte3: status });
        return true;
      };
    },
  },
  'a unit attention at first': {
    fullFeature: once(isMarked, (pdu, link) =>
      link.respond(pdu, {
        byte3: 2,
        data: Buffer.from('0012700006000000000a00000000290000000000', 'hex'),
      }),
    ),
  },
  'a target failure (response 1) at first': {
    fullFeature: once(isMarked, (pdu, link) => link.respond(pdu, { byte2: 1 })),
  },
  'a command that is rejected at first': {
    fullFeature: once(isMarked, (pdu, link) => {
      link.expCmdSN = pdu.cmdSN;
      link.send({ opcode: OP.reject, byte2: 0x0a, ttt: 0, data: pdu.header });
    }),
  },
  'damaged data at first (data digest)': {
    keys: { DataDigest: 'CRC32C' },
    options: { dataDigest: ['CRC32C'] },
    fullFeature: once(isMarked, (pdu, link) => {
      const bytes = link.encode(dataIn(pdu, { flags: F | 1, data: link.bytesOf(pdu) }));
      bytes[60] = 0;
      link.write(bytes);
    }),
  },
};

/** A violation or a loss that the session recovers from, with the request held meanwhile. */
const RECOVERED: Readonly<Record<string, Case>> = {
  'an opcode no target has': sends((pdu) => ({ opcode: 0x3a, itt: pdu.itt })),
  'the opcode of an initiator': sends((pdu) => ({ opcode: 0x01, itt: pdu.itt })),
  'a gap in StatSN': sends((pdu, link) => ({
    opcode: OP.scsiResponse,
    itt: pdu.itt,
    statSN: link.statSN + 1,
  })),
  'Data-In over the end of the transfer': sends((pdu) =>
    dataIn(pdu, { word40: 0, data: Buffer.alloc(pdu.word20 + 4) }),
  ),
  'Data-In at another offset': sends((pdu) => dataIn(pdu, { word40: 8, data: Buffer.alloc(8) })),
  'Data-In with another DataSN': sends((pdu) => dataIn(pdu, { word36: 3, data: Buffer.alloc(8) })),
  'Data-In of another LUN': sends((pdu) =>
    dataIn(pdu, { ttt: 1, lun: [0x00050000, 0], data: Buffer.alloc(8) }),
  ),
  'Data-In that never came (ExpDataSN)': sends((pdu) => response(pdu, { word36: 9 })),
  'an R2T for a read': sends((pdu) => r2t(pdu, 0, 512)),
  'a Logout Response without a request': sends(() => ({ opcode: OP.logout, itt: 0 })),
  'a Login Response after the login': sends(() => ({ opcode: OP.login, flags: 0x87, itt: 0 })),
  'a Reject with half a header': sends(() => ({ opcode: OP.reject, data: Buffer.alloc(20) })),
  'the deprecated reject reason 0bh': sends((pdu) => ({
    opcode: OP.reject,
    byte2: 0x0b,
    data: pdu.header,
  })),
  'a segment of 16 MiB': sends((pdu) => dataIn(pdu, { claimedLength: 0xffffff })),
  'a segment over what was declared': sends((pdu) => dataIn(pdu, { claimedLength: 262145 })),
  'an R2T for nothing': asks((pdu) => r2t(pdu, pdu.data.length, 0)),
  'an R2T over the end': asks((pdu) => r2t(pdu, pdu.data.length, pdu.word20)),
  'an R2T of another LUN': asks((pdu) => ({ ...r2t(pdu, pdu.data.length, 512), lun: [9, 9] })),
  'an R2T with the reserved tag': asks((pdu) => ({
    ...r2t(pdu, pdu.data.length, 512),
    ttt: 0xffffffff,
  })),
  'an R2T for what was sent': asks((pdu) => r2t(pdu, 0, 512)),
  'a wrong header digest': {
    keys: { HeaderDigest: 'CRC32C' },
    options: { headerDigest: ['CRC32C'] },
    fullFeature: once(isMarked, (pdu, link) => {
      const bytes = link.encode(dataIn(pdu, { flags: F | 1, data: link.bytesOf(pdu) }));
      bytes[30] = bytes[30]! ^ 1;
      link.write(bytes);
    }),
  },
  garbage: does((_pdu, link) => link.write(Buffer.alloc(4096, 0xa5))),
  'a connection that ends in the middle of a PDU': does((pdu, link) => {
    link.write(link.encode(dataIn(pdu, { data: link.bytesOf(pdu) })).subarray(0, 700));
    link.socket.end();
  }),
  'a connection that is reset': does((_pdu, link) => link.socket.resetAndDestroy()),
  silence: {
    ...does((_pdu, link) => link.socket.pause()),
    options: { noopIntervalSeconds: 0.5, noopTimeoutSeconds: 0.5 },
  },
  'a logout request (AsyncEvent 1), twice': sends(
    () => ({ opcode: OP.async, word36: 1 << 24, word40: 5, ttt: 0 }),
    2,
  ),
  'a connection drop (AsyncEvent 2)': sends(() => ({ opcode: OP.async, word36: 2 << 24, ttt: 0 })),
  'a session drop (AsyncEvent 3)': sends(() => ({ opcode: OP.async, word36: 3 << 24, ttt: 0 })),
  'a wish to negotiate (AsyncEvent 4)': sends(() => ({
    opcode: OP.async,
    word36: 4 << 24,
    word40: 5,
    ttt: 0,
  })),
};

type Pdu = TargetPdu;

function does(act: (pdu: InitiatorPdu, link: HostileLink) => void): Case {
  return { fullFeature: once(isMarked, act) };
}

/** Sends the PDU instead of the first marked answer. */
function sends(make: (pdu: InitiatorPdu, link: HostileLink) => Pdu, times = 1): Case {
  return does((pdu, link) => {
    for (let count = 0; count < times; count += 1) link.send(make(pdu, link));
  });
}

/** Sends the R2T for the first write. */
function asks(make: (pdu: InitiatorPdu) => Pdu, keys: Record<string, string> = {}): Case {
  return {
    keys: { InitialR2T: 'Yes', ...keys },
    fullFeature: once(isWriteCommand, (pdu, link) => link.send(make(pdu))),
  };
}

function response(pdu: InitiatorPdu, fields: Partial<Pdu>): Pdu {
  return { opcode: OP.scsiResponse, itt: pdu.itt, ttt: 0, ...fields };
}

const isOperational = (pdu: InitiatorPdu) => !isSecurity(pdu);

/** Logins that cannot succeed: the exit code, and the section of a violation. */
const REFUSED: Readonly<Record<string, Case & { readonly exit: number; readonly says: RegExp }>> = {
  'another PDU': login(5, /§6\.3\)/, (_pdu, link) => link.send({ opcode: OP.nopIn })),
  'another tag': login(5, /Task Tag/, (pdu, link) =>
    link.answerLogin(pdu, securityAnswer, { itt: 99 }),
  ),
  'version 1': login(5, /Version-active/, (pdu, link) =>
    link.answerLogin(pdu, securityAnswer, { byte3: 1 }),
  ),
  'the T and the C bit': login(5, /T bit and the C bit/, (pdu, link) =>
    link.answerLogin(pdu, securityAnswer, { flags: pdu.flags | 0x40 }),
  ),
  'a stage that was not proposed': login(5, /stage/, (pdu, link) =>
    link.answerLogin(pdu, securityAnswer, { flags: 0x83 }),
  ),
  'a value that was not offered': atOperational(5, /HeaderDigest/, (pdu, link) =>
    link.answerLogin(pdu, operationalAnswer({ HeaderDigest: 'CRC64' }, linesOf(pdu))),
  ),
  'a key twice with two values': atOperational(5, /different values/, (pdu, link) =>
    link.answerLogin(pdu, [...operationalAnswer({}, linesOf(pdu)), 'MaxBurstLength=512']),
  ),
  'more than 8192 bytes in one PDU': login(5, /8192/, (pdu, link) =>
    link.answerLogin(pdu, ['x'.repeat(8200)]),
  ),
  'a login without end': login(5, /does not end/, (pdu, link) =>
    link.answerLogin(pdu, isSecurity(pdu) ? securityAnswer.slice(0, 1) : [], {
      flags: pdu.flags & 0x0c,
      ...(link.statSN > 1000 ? { data: Buffer.alloc(0) } : {}),
    }),
  ),
  'a redirection to itself without end': {
    exit: 5,
    says: /redirects without end/,
    login: () => (pdu, link) => {
      const address = `TargetAddress=127.0.0.1:${link.target.port}`;
      link.answerLogin(pdu, [address], { flags: 0, word36: 0x0101 << 16 });
      return true;
    },
  },
  'a redirection to nowhere': status(0x0101, 5, /TargetAddress/),
  'status 0201': status(0x0201, 24, /0201/),
  'status 0202': status(0x0202, 19, /0202/),
  'status 0203': status(0x0203, 19, /0203/),
  'status 0205': status(0x0205, 19, /0205/),
  'status 0301': status(0x0301, 5, /0301/),
  'status 0302': status(0x0302, 5, /0302/),
  silence: {
    exit: 8,
    says: /in time/,
    login: when(
      () => true,
      () => undefined,
    ),
    options: { loginTimeoutSeconds: 1 },
  },
  'a connection that ends at once': {
    exit: 4,
    says: /closed/,
    target: {
      accepted: (link) => {
        link.socket.end();
        return true;
      },
    },
  },
};

function login(exit: number, says: RegExp, act: (pdu: InitiatorPdu, link: HostileLink) => void) {
  return { exit, says, login: when(() => true, act) };
}

/** Answers every request of every login in its own way. */
function atLogin(act: (pdu: InitiatorPdu, link: HostileLink) => void): Case {
  return { login: when(() => true, act) };
}

function writeLogin(pdu: InitiatorPdu, link: HostileLink, bytes: Buffer): void {
  link.write(bytes);
  if (!isSecurity(pdu)) link.loggedIn();
}

function atOperational(
  exit: number,
  says: RegExp,
  act: (pdu: InitiatorPdu, link: HostileLink) => void,
) {
  return { exit, says, login: when(isOperational, act) };
}

function status(code: number, exit: number, says: RegExp) {
  return login(exit, says, (pdu, link) =>
    link.answerLogin(pdu, [], { flags: 0, word36: (code << 16) >>> 0 }),
  );
}

const openFiles = () => readdirSync('/proc/self/fd').length;
const filesBefore = openFiles();

describe.concurrent('a legal but unusual target', () => {
  test.each(Object.entries(LEGAL))(
    'the session works without an outage despite %s',
    { timeout: 60_000 },
    async (_name, one) => {
      expect(wentAway(await use(one))).toBe(0);
    },
  );
});

describe.concurrent('a target that breaks a rule once', () => {
  test.each(Object.entries(RECOVERED))(
    'the session recovers and the disk is right after %s',
    { timeout: 60_000 },
    async (_name, one) => {
      expect(wentAway(await use(one))).toBe(1);
    },
  );
});

describe.concurrent('a login that cannot succeed', () => {
  test.each(Object.entries(REFUSED))(
    'the login ends with its exit code after %s',
    { timeout: 60_000 },
    async (_name, one) => {
      const error: unknown = await use(one).then(
        () => new Error('the login succeeded'),
        (reason: unknown) => reason,
      );
      expect(String(error)).toMatch(one.says);
      expect(exitCodeOf(error)).toBe(one.exit);
    },
  );
});

const TEXT = ['TargetName=iqn.2024-01.com.example:found', 'TargetAddress=192.0.2.5:3260,1'];
const isText = (pdu: InitiatorPdu) => pdu.opcode === FROM.text;

/** What discovery finds, or the exit code it ends in. */
async function discovered(options: Partial<HostileOptions>, session: Partial<SessionOptions> = {}) {
  await using target = await HostileTarget.start(options);
  const portal = { host: '127.0.0.1', port: target.port };
  const signal = AbortSignal.timeout(30_000);
  return await discover(portal, { ...SESSION_OPTIONS, ...session }, signal).then(
    (found) => found.map((one) => one.name),
    (error: unknown) => exitCodeOf(error),
  );
}

describe.concurrent('discovery at a hostile target', () => {
  const found = ['iqn.2024-01.com.example:found'];
  const answer = (link: HostileLink, pdu: InitiatorPdu, fields: Partial<TargetPdu> = {}) =>
    link.send({ opcode: OP.text, itt: pdu.itt, data: textOf(TEXT), ...fields });

  test('an answer in pieces, some of no bytes, is one answer', async () => {
    const all = textOf(TEXT);
    let at = -1;
    const fullFeature = when(isText, (pdu, link) => {
      at += 1;
      const data = at === 0 ? Buffer.alloc(0) : all.subarray(5 * (at - 1), 5 * at);
      const isLast = 5 * at >= all.length;
      answer(link, pdu, isLast ? { data } : { data, flags: 0x40, ttt: 0x99 });
    })();
    expect(await discovered({ fullFeature })).toEqual(found);
  });

  test('a command window that is closed at login is awaited', async () => {
    const fullFeature = when(isText, (pdu, link) => answer(link, pdu))();
    const login: Behaviour = (pdu, link) => {
      if (isSecurity(pdu)) return false;
      const lines = operationalAnswer({}, linesOf(pdu));
      link.answerLogin(pdu, lines, { maxCmdSN: pdu.cmdSN - 1 });
      setTimeout(() => link.send({ opcode: OP.nopIn }), 50);
      return true;
    };
    expect(await discovered({ fullFeature, login })).toEqual(found);
  });

  test('an answer that ends without F bit and tag is whole (open-iscsi takes it so, too)', async () => {
    const fullFeature = when(isText, (pdu, link) => answer(link, pdu, { flags: 0 }))();
    expect(await discovered({ fullFeature })).toEqual(found);
  });

  test('a target of Jiva and an unknown key are listed, with a warning for each', async () => {
    const lines = ['Colour=red', 'TargetName=iqn.2024-01.com.example:found'];
    const data = textOf([...lines, 'TargetAddress=192.0.2.1:3260,-1']);
    const fullFeature = when(isText, (pdu, link) => answer(link, pdu, { data }))();
    await using target = await HostileTarget.start({ fullFeature });
    const warnings: string[] = [];
    const portal = { host: '127.0.0.1', port: target.port };
    const signal = AbortSignal.timeout(30_000);
    const listed = await discover(portal, SESSION_OPTIONS, signal, (text) => warnings.push(text));
    expect(listed.map(({ portals }) => portals)).toEqual([[{ host: '192.0.2.1', port: 3260 }]]);
    expect(warnings).toEqual([expect.stringContaining('Colour'), expect.stringContaining('-1')]);
  });

  test('an empty list of targets is a valid answer', async () => {
    const fullFeature = when(isText, (pdu, link) => answer(link, pdu, { data: Buffer.alloc(0) }))();
    expect(await discovered({ fullFeature })).toEqual([]);
  });

  test.each([
    ['silence', 11, () => undefined],
    [
      'a reject',
      5,
      (pdu: InitiatorPdu, link: HostileLink) =>
        link.send({ opcode: OP.reject, byte2: 9, data: pdu.header }),
    ],
    [
      'an answer without end',
      5,
      (pdu: InitiatorPdu, link: HostileLink) => answer(link, pdu, { flags: 0x40, ttt: 1 }),
    ],
    ['the end of the connection', 4, (_pdu: InitiatorPdu, link: HostileLink) => link.socket.end()],
  ] as const)('the discovery ends with %s as exit code %i', async (_what, exit, act) => {
    const fullFeature = when(isText, act)();
    expect(await discovered({ fullFeature }, { taskTimeoutSeconds: 2 })).toBe(exit);
  });
});

test('the tables hold at least forty misbehaviours', () => {
  const count = [LEGAL, RECOVERED, REFUSED].flatMap((table) => Object.keys(table)).length;
  expect(count).toBeGreaterThanOrEqual(40);
});

afterAll(() => {
  // Sockets of all those connections are closed again; pools and timers keep a few.
  expect(openFiles()).toBeLessThan(filesBefore + 20);
});
