import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import type { TargetNodeOptions } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';
import { NAME, RawInitiator, read10, senseOf, TEST_UNIT_READY, write10 } from './raw-initiator.js';

const F = 0x80;
const R = 0x40;
const W = 0x20;
const bytes = (length: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => (index * 7 + seed) & 255));

/** Time that moves when a test says so. */
class HandClock implements Clock {
  now = 0;
  #due: { atMs: number; action: () => void }[] = [];
  nowMs(): number {
    return this.now;
  }
  at(atMs: number, action: () => void): () => void {
    const entry = { atMs, action };
    this.#due.push(entry);
    return () => {
      this.#due = this.#due.filter((one) => one !== entry);
    };
  }
  pass(ms: number): void {
    this.now += ms;
    const due = this.#due.filter((one) => one.atMs <= this.now);
    this.#due = this.#due.filter((one) => one.atMs > this.now);
    for (const one of due) one.action();
  }
}

type Scene = { node: TargetNode; disk: TargetDisk; initiator: RawInitiator; clock: HandClock };

function scene(
  keys: string[] = [],
  options: Partial<TargetNodeOptions> = {},
  diskOptions: TargetDiskOptions = {},
): Scene {
  const disk = TargetDisk.ram({ sizeBytes: 1 << 20, ...diskOptions });
  const clock = new HandClock();
  const targets = [{ name: NAME, luns: { 0: disk } }];
  const node = new TargetNode({ targets, clock, ...options });
  const initiator = new RawInitiator(node);
  initiator.logIn(...keys);
  return { node, disk, initiator, clock };
}

describe('Data-In (RFC 7143 §11.7 (SCSI Data-Out and SCSI Data-In))', () => {
  const keys = ['MaxRecvDataSegmentLength=1024', 'MaxBurstLength=2048'];

  it('Data-In is cut by the segment maximum, has F at the end of each burst, and status in the last', () => {
    const { initiator, disk } = scene(keys);
    const content = bytes(4096, 1);
    disk.write(0, content);
    const pdus = initiator.command({ cdb: read10(0, 8), flags: F | R, expected: 4096 });
    expect(pdus.map((pdu) => pdu.header[1])).toEqual([0x00, 0x80, 0x00, 0x81]);
    expect(pdus.map((pdu) => pdu.header.readUInt32BE(36))).toEqual([0, 1, 2, 3]);
    expect(pdus.map((pdu) => pdu.header.readUInt32BE(40))).toEqual([0, 1024, 2048, 3072]);
    expect(Buffer.concat(pdus.map((pdu) => pdu.data))).toEqual(content);
  });

  it('Data-In may be followed by a SCSI Response, hold empty segments and smaller ones', () => {
    const dataIn = { collapseStatus: false, segmentBytesMax: 512, emptySegments: true };
    const { initiator } = scene(keys, { faults: { dataIn } });
    const pdus = initiator.command({ cdb: read10(0, 2), flags: F | R, expected: 1024 });
    expect(pdus.map((pdu) => [pdu.header[0], pdu.data.length])).toEqual([
      [0x25, 0],
      [0x25, 512],
      [0x25, 0],
      [0x25, 512],
      [0x21, 0],
    ]);
    expect(pdus[4]!.header.readUInt32BE(36)).toBe(4);
  });
});

describe('residuals (RFC 7143 §11.4.5 (Residual Count))', () => {
  it.each([
    ['a read of less than expected underflows', read10(0, 1), R, 1024, 0x02, 512],
    ['a read of more than expected overflows', read10(0, 2), R, 512, 0x04, 512],
    ['a command without data underflows by all of it', TEST_UNIT_READY, R, 100, 0x02, 100],
    ['a read that expects nothing overflows', read10(0, 1), 0, 0, 0x04, 512],
  ])('%s', (_title, cdb, direction, expected, flag, residual) => {
    const { initiator } = scene();
    const last = initiator.command({ cdb, flags: F | direction, expected }).at(-1)!;
    expect(last.header[1]! & 0x06).toBe(flag);
    expect(last.header.readUInt32BE(44)).toBe(residual);
  });
});

describe('Data-Out', () => {
  const content = bytes(4096, 5);

  it('RFC 7143 §11.8 (Ready To Transfer (R2T)): the target sends MaxOutstandingR2T R2Ts at once', () => {
    const keys = ['InitialR2T=Yes', 'ImmediateData=No', 'MaxBurstLength=1024'];
    const { initiator, disk, node } = scene([...keys, 'MaxOutstandingR2T=2']);
    let asked = initiator.command({ cdb: write10(0, 8), flags: F | W, expected: 4096 });
    expect(asked.map((pdu) => pdu.header.readUInt32BE(36))).toEqual([0, 1]);
    const waiting = [...asked];
    const statSN = asked[0]!.header.readUInt32BE(24);
    let answer = asked;
    for (let burst = 0; burst < 4; burst += 1) {
      const r2t = waiting.shift()!;
      const offset = r2t.header.readUInt32BE(40);
      expect([offset, r2t.header.readUInt32BE(44)]).toEqual([burst * 1024, 1024]);
      const ttt = r2t.header.readUInt32BE(20);
      const half = { ttt, dataSN: 0, offset, data: content.subarray(offset, offset + 512) };
      expect(initiator.dataOut({ ...half, final: false })).toEqual([]);
      const data = content.subarray(offset + 512, offset + 1024);
      asked = initiator.dataOut({ ttt, dataSN: 1, offset: offset + 512, data, final: true });
      answer = asked;
      waiting.push(...asked.filter((pdu) => pdu.header[0] === 0x31));
    }
    expect([answer[0]!.header[0], answer[0]!.header[3]]).toEqual([0x21, 0]);
    expect(answer[0]!.header.readUInt32BE(24)).toBe(statSN);
    expect(disk.read(0, 4096)).toEqual(content);
    expect([node.stats.r2ts, node.stats.violations]).toEqual([4, []]);
  });

  it('RFC 7143 §13.14 (FirstBurstLength): immediate and unsolicited data fill it, R2Ts request the rest', () => {
    const { initiator, disk, node } = scene(['InitialR2T=No', 'FirstBurstLength=1024']);
    const command = { cdb: write10(0, 8), flags: W, expected: 4096 };
    expect(initiator.command({ ...command, data: content.subarray(0, 512) })).toEqual([]);
    const [r2t] = initiator.dataOut({
      ttt: 0xffffffff,
      dataSN: 0,
      offset: 512,
      data: content.subarray(512, 1024),
      final: true,
    });
    expect(r2t!.header.readUInt32BE(40)).toBe(1024);
    expect(r2t!.header.readUInt32BE(44)).toBe(3072);
    const ttt = r2t!.header.readUInt32BE(20);
    const data = content.subarray(1024);
    const [answer] = initiator.dataOut({ ttt, dataSN: 0, offset: 1024, data, final: true });
    expect(answer!.header[3]).toBe(0);
    expect(disk.read(0, 4096)).toEqual(content);
    expect(node.stats.violations).toEqual([]);
  });

  it('RFC 7143 §11.4.7.2 (Sense Data): unexpected and incorrect amounts end in 0Ch/0Ch and 0Ch/0Dh', () => {
    const strict = scene(['ImmediateData=No']).initiator;
    const immediate = { cdb: write10(0, 1), flags: F | W, expected: 512, data: bytes(512, 1) };
    expect(senseOf(strict.command(immediate)[0]!)).toEqual([0x0b, 0x0c, 0x0c]);
    const { initiator, node } = scene(['InitialR2T=Yes', 'ImmediateData=No']);
    const [r2t] = initiator.command({ cdb: write10(0, 2), flags: F | W, expected: 1024 });
    const ttt = r2t!.header.readUInt32BE(20);
    const short = { ttt, dataSN: 0, offset: 0, data: bytes(512, 1), final: true };
    expect(senseOf(initiator.dataOut(short)[0]!)).toEqual([0x0b, 0x0c, 0x0d]);
    expect(node.stats.violations).toHaveLength(1);
  });
});

describe('numbering (RFC 7143 §4.2.2.1 (Command Numbering and Acknowledging))', () => {
  it('commands wait for those before them', () => {
    const { initiator } = scene();
    initiator.cmdSN = 2;
    expect(initiator.command({ cdb: TEST_UNIT_READY, flags: F })).toEqual([]);
    initiator.cmdSN = 1;
    const both = initiator.command({ cdb: TEST_UNIT_READY, flags: F });
    expect(both.map((pdu) => pdu.header.readUInt32BE(16))).toEqual([0x102, 0x101]);
    expect(both[1]!.header.readUInt32BE(28)).toBe(3);
  });

  it('commands outside the window and duplicates are ignored, and immediate ones have no number', () => {
    const { initiator, node } = scene([], { commandWindow: 4 });
    initiator.cmdSN = 5;
    expect(initiator.command({ cdb: TEST_UNIT_READY, flags: F })).toEqual([]);
    initiator.cmdSN = 0;
    expect(initiator.command({ cdb: TEST_UNIT_READY, flags: F })).toEqual([]);
    expect(node.stats.ignoredByWindow).toBe(2);
    initiator.cmdSN = 1;
    const [now] = initiator.command({ cdb: TEST_UNIT_READY, flags: F, immediate: true });
    expect(now!.header.readUInt32BE(28)).toBe(1);
    expect(now!.header.readUInt32BE(32)).toBe(4);
  });

  it('CmdSN and StatSN wrap at 2^32', () => {
    const { node } = scene([], { initialStatSN: 0xffffffff });
    const initiator = new RawInitiator(node);
    initiator.isid = '400001370002';
    initiator.cmdSN = 0xffffffff;
    expect(initiator.logIn().header.readUInt32BE(24)).toBe(0xffffffff);
    const [first] = initiator.command({ cdb: TEST_UNIT_READY, flags: F });
    expect([first!.header.readUInt32BE(24), first!.header.readUInt32BE(28)]).toEqual([0, 0]);
  });

  it('a NOP-In reports a window that opens again', () => {
    const { initiator, node } = scene([], {
      commandWindow: 1,
      faults: { onCommand: () => 'ignore' },
    });
    initiator.command({ cdb: TEST_UNIT_READY, flags: F });
    const seen = initiator.received.length;
    node.setCommandWindow(3);
    const [nop] = initiator.received.slice(seen);
    expect(nop!.header[0]).toBe(0x20);
    expect([nop!.header.readUInt32BE(16), nop!.header.readUInt32BE(20)]).toEqual([
      0xffffffff, 0xffffffff,
    ]);
    expect(nop!.header.readUInt32BE(32)).toBe(3);
  });
});

describe('task management (RFC 7143 §11.5 (Task Management Function Request))', () => {
  const ignoring = { faults: { onCommand: () => 'ignore' as const } };

  it('ABORT TASK ends the task, and a second one reports that it does not exist', () => {
    const { initiator, node } = scene([], ignoring);
    initiator.command({ cdb: TEST_UNIT_READY, flags: F });
    const rtt = initiator.itt;
    expect(initiator.taskManagement({ code: 1, rtt, refCmdSN: 1 })).toBe(0);
    expect(initiator.taskManagement({ code: 1, rtt, refCmdSN: 1 })).toBe(1);
    expect(node.stats.tasksKilled).toBe(1);
  });

  it('RFC 7143 §11.6.1 (Response): ABORT TASK of a command that never came fills its CmdSN', () => {
    const { initiator } = scene();
    initiator.cmdSN = 2;
    expect(initiator.command({ cdb: TEST_UNIT_READY, flags: F })).toEqual([]);
    const seen = initiator.received.length;
    expect(initiator.taskManagement({ code: 1, rtt: 0x999, refCmdSN: 1 })).toBe(0);
    expect(initiator.received.slice(seen).map((pdu) => pdu.header[0])).toEqual([0x22, 0x21]);
  });

  it.each([
    ['LOGICAL UNIT RESET', 5, 0, 0],
    ['LOGICAL UNIT RESET of no LUN', 5, 3, 2],
    ['TARGET WARM RESET', 6, 0, 0],
    ['CLEAR TASK SET', 4, 0, 0],
    ['CLEAR ACA', 3, 0, 5],
    ['TASK REASSIGN', 8, 0, 4],
    ['an unknown function', 9, 0, 255],
  ])(
    'the function gets its response and ends the task if that is 0: %s',
    (_title, code, lun, response) => {
      const { initiator, node } = scene([], ignoring);
      initiator.command({ cdb: TEST_UNIT_READY, flags: F });
      expect(initiator.taskManagement({ code, lun })).toBe(response);
      expect(node.stats.tasksKilled).toBe(response === 0 ? 1 : 0);
    },
  );
});

describe('unit attentions', () => {
  const tur = (initiator: RawInitiator): number[] => {
    const [pdu] = initiator.command({ cdb: TEST_UNIT_READY, flags: F });
    return pdu!.header[3] === 0 ? [] : senseOf(pdu!);
  };

  it('29h/00h reaches each initiator once after a restart, and INQUIRY does not take it', () => {
    const { node } = scene();
    node.restart();
    const initiator = new RawInitiator(node);
    initiator.logIn();
    const inquiry = { cdb: [0x12, 0, 0, 0, 36, 0], flags: F | R, expected: 36 };
    expect(initiator.command(inquiry)[0]!.header[0]).toBe(0x25);
    expect(tur(initiator)).toEqual([0x06, 0x29, 0x00]);
    expect(tur(initiator)).toEqual([]);
    const again = new RawInitiator(node);
    again.logIn();
    expect(tur(again)).toEqual([]);
  });

  it('changes of capacity, write protection and LUNs are reported', () => {
    const { node, disk, initiator } = scene();
    disk.resize(2 << 20);
    expect(tur(initiator)).toEqual([0x06, 0x2a, 0x09]);
    disk.readOnly = true;
    expect(tur(initiator)).toEqual([0x06, 0x2a, 0x01]);
    node.setLun(NAME, 5, TargetDisk.ram({ sizeBytes: 4096 }));
    expect(tur(initiator)).toEqual([0x06, 0x3f, 0x0e]);
    expect(tur(initiator)).toEqual([]);
  });
});

describe('faults', () => {
  it('a fault yields sense in fixed and descriptor format, deferred sense, and any status', () => {
    const faults: TargetNodeOptions['faults'] = {};
    const { initiator } = scene([], { faults });
    const send = () => initiator.command({ cdb: TEST_UNIT_READY, flags: F })[0]!;
    const sense = { key: 3, asc: 0x11, ascq: 0 };
    faults.onCommand = () => ({ sense: { ...sense, deferred: true } });
    expect(send().data.subarray(2, 6).toString('hex')).toBe('71000300');
    faults.onCommand = () => ({ sense: { ...sense, format: 'descriptor' } });
    expect(send().data.toString('hex')).toBe('00087203110000000000');
    faults.onCommand = () => ({ status: 0x28 });
    expect(send().header[3]).toBe(0x28);
    faults.onCommand = () => ({ response: 1 });
    expect(send().header[2]).toBe(1);
  });

  it('a delayed write dies with its session, unless it outlives the link; reinstatement ends it', () => {
    const write = { cdb: write10(0, 1), flags: F | W, expected: 512, data: bytes(512, 9) };
    const untouched = Buffer.alloc(512);
    for (const [outlivesLink, reinstate, expected] of [
      [false, false, untouched],
      [true, false, write.data],
      [true, true, untouched],
    ] as const) {
      const onCommand = () => ({ delayMs: 1000, outlivesLink });
      const { initiator, node, clock, disk } = scene([], { faults: { onCommand } });
      initiator.command(write);
      initiator.connection.drop();
      node.faults.onCommand = undefined;
      if (reinstate) new RawInitiator(node).logIn();
      clock.pass(1000);
      expect(disk.read(0, 512).equals(expected)).toBe(true);
    }
  });

  it('the connection may end before the command ran, after it ran, or lose only its response', () => {
    const write = { cdb: write10(0, 1), flags: F | W, expected: 512, data: bytes(512, 9) };
    for (const [fault, ran, closed] of [
      ['drop-connection', false, 'dropped'],
      ['drop-connection-after', true, 'dropped'],
      ['drop-response', true, null],
    ] as const) {
      const { initiator, disk } = scene([], { faults: { onCommand: () => fault } });
      expect(initiator.command(write)).toEqual([]);
      expect(initiator.closed).toBe(closed);
      expect(disk.read(0, 512).equals(write.data)).toBe(ran);
    }
  });

  it('PDUs may be changed or lost on their way out', () => {
    const faults: TargetNodeOptions['faults'] = {};
    const { initiator } = scene([], { faults });
    faults.onSend = (header) => {
      header[3] = 0x08;
      return undefined;
    };
    const tur = { cdb: TEST_UNIT_READY, flags: F };
    expect(initiator.command(tur)[0]!.header[3]).toBe(0x08);
    faults.onSend = () => 'drop';
    expect(initiator.command(tur)).toEqual([]);
  });
});

describe('unsolicited PDUs', () => {
  it('RFC 7143 §11.19 (NOP-In): responses to the target’s own ping are counted', () => {
    const { initiator, node } = scene();
    initiator.connection.sendNop();
    const nop = initiator.received.at(-1)!;
    expect(nop.header.readUInt32BE(16)).toBe(0xffffffff);
    const answer = initiator.header(0x40, 0x80);
    answer.writeUInt32BE(0xffffffff, 16);
    nop.header.copy(answer, 20, 20, 24);
    expect(initiator.send(answer)).toEqual([]);
    expect([node.stats.nopAnswers, node.stats.violations]).toEqual([1, []]);
  });

  it('RFC 7143 §11.18 (NOP-Out): a ping comes back with its data', () => {
    const { initiator } = scene();
    const header = initiator.header(0x40, 0x80);
    header.writeUInt32BE(0xffffffff, 20);
    const [echo] = initiator.send(header, Buffer.from('ping!'));
    expect([echo!.header[0], echo!.data.toString()]).toEqual([0x20, 'ping!']);
  });

  it('RFC 7143 §11.9 (Asynchronous Message): the message has the content of the test', () => {
    const { initiator } = scene();
    initiator.connection.sendAsync({ event: 1, parameters: [0, 0, 10] });
    const { header } = initiator.received.at(-1)!;
    expect([header[0], header[36], header.readUInt16BE(42)]).toEqual([0x32, 1, 10]);
  });
});

describe('flushes and caches', () => {
  it('SYNCHRONIZE CACHE and FUA make writes durable and are counted', () => {
    const { initiator, disk, node } = scene([], {}, { writeCache: 'volatile' });
    const write = (cdb: number[]) =>
      initiator.command({ cdb, flags: F | W, expected: 512, data: bytes(512, 1) });
    write(write10(0, 1));
    initiator.command({ cdb: [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], flags: F });
    write(write10(1, 1));
    const fua = write10(2, 1);
    fua[1] = 0x08;
    write(fua);
    node.restart({ powerLoss: true });
    const kept = [0, 1, 2].map((lba) => disk.read(lba * 512, 512).equals(bytes(512, 1)));
    expect(kept).toEqual([true, false, true]);
    expect([node.stats.flushes, node.stats.fuaWrites]).toEqual([1, 1]);
  });
});
