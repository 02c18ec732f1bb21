/** UNH-IOL's full feature phase tests for initiators (version 0.1 of the document): data. */
import { describe, expect, it } from 'vitest';
import { FROM, type InitiatorPdu, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { patternOf, ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const [S, WRITE] = [1, 0x20];
const LUN1 = [0x00010000, 0] as const;
const TAG = 0xabbaabba;

type Keys = Readonly<Record<string, string>>;

/** A write of `length` bytes to a target with these keys: all that is sent without an R2T. */
function write(length: number, keys: Keys) {
  const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 } }, { keys });
  peer.submit('write', length, { operation: 0x2a });
  const [command, ...dataOuts] = peer.sent();
  if (command?.opcode !== FROM.scsiCommand) throw new Error('no command was sent');
  return { peer, command, dataOuts };
}

const r2t = (command: InitiatorPdu, at: number, length: number, number = 0, ttt = TAG) => ({
  ...{ opcode: OP.r2t, itt: command.itt, lun: LUN1, ttt },
  ...{ word36: number, word40: at, word44: length },
});

const offsets = (pdus: readonly InitiatorPdu[]) => pdus.map((pdu) => pdu.word40);
const numbers = (pdus: readonly InitiatorPdu[]) => pdus.map((pdu) => pdu.word36);
const lasts = (pdus: readonly InitiatorPdu[]) => pdus.map((pdu) => (pdu.flags & F) !== 0);
const bytesOf = (pdus: readonly InitiatorPdu[]) => Buffer.concat(pdus.map((pdu) => pdu.data));

const keysOf = (initialR2T: string, immediate: string, more: Keys = {}): Keys => ({
  ...{ InitialR2T: initialR2T, ImmediateData: immediate },
  ...more,
});
const SMALL = { FirstBurstLength: '512', MaxBurstLength: '1024' };
const LARGE = { FirstBurstLength: '65536', MaxBurstLength: '262144' };
const SEGMENTS = { MaxRecvDataSegmentLength: '512' };
const SOLICITED = keysOf('Yes', 'No', SEGMENTS);

describe('UNH-IOL full feature phase: unsolicited and solicited data', () => {
  it('#8.1 (Data Transmission): FirstBurstLength bounds what is sent unasked; R2Ts are honoured', () => {
    const { peer, command, dataOuts } = write(2048, keysOf('No', 'Yes', SMALL));
    expect(bytesOf([command, ...dataOuts])).toEqual(patternOf(2048).subarray(0, 512));
    peer.send(r2t(command, 512, 1024));
    expect(bytesOf(peer.sent())).toEqual(patternOf(2048).subarray(512, 1536));
    peer.send(r2t(command, 1536, 512, 1));
    expect(bytesOf(peer.sent())).toEqual(patternOf(2048).subarray(1536));
  });

  it('#8.2 (Data Transmission): with InitialR2T=Yes and ImmediateData=No no data come unasked', () => {
    const { peer, command, dataOuts } = write(2048, keysOf('Yes', 'No', SMALL));
    expect([command.data.length, dataOuts]).toEqual([0, []]);
    peer.at(peer.nowMs + 3000);
    expect(peer.sent()).toEqual([]);
    peer.send(r2t(command, 0, 1024));
    expect(bytesOf(peer.sent())).toEqual(patternOf(2048).subarray(0, 1024));
  });

  it('#8.3 (Data Transmission): unsolicited Data-Out are no more than FirstBurstLength', () => {
    const { command, dataOuts } = write(2048, keysOf('No', 'No', SMALL));
    expect(command.data).toHaveLength(0);
    expect(bytesOf(dataOuts)).toEqual(patternOf(2048).subarray(0, 512));
    expect(dataOuts.map(({ word20 }) => word20)).toEqual([NO_TAG]);
  });

  it('#9.1 (Target Transfer Tag): each Data-Out has the tag of its R2T', () => {
    const { peer, command } = write(2048, { ...SOLICITED, ...SMALL });
    peer.send(r2t(command, 0, 1024, 0, 0x1234));
    expect(peer.sent().map(({ word20 }) => word20)).toEqual([0x1234, 0x1234]);
  });

  it('#11.1.1 (Data-out DataSegmentLength): no segment is over MaxRecvDataSegmentLength', () => {
    const { peer, command, dataOuts } = write(4096, keysOf('No', 'Yes', { ...LARGE, ...SEGMENTS }));
    const all = [command, ...dataOuts];
    expect(all.map(({ data }) => data.length)).toEqual(Array(8).fill(512));
    const second = write(1024, SOLICITED);
    second.peer.send(r2t(second.command, 0, 1024));
    expect(second.peer.sent().map(({ data }) => data.length)).toEqual([512, 512]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('#11.2.1 (Data-out F bit): the last unsolicited Data-Out has the F bit, and no other', () => {
    const { command, dataOuts } = write(2048, keysOf('No', 'Yes', { ...LARGE, ...SEGMENTS }));
    expect([command.flags & F, lasts(dataOuts)]).toEqual([0, [false, false, true]]);
  });

  it('#11.2.2 (Data-out F bit): the last Data-Out of an R2T has the F bit, and no other', () => {
    const keys = { ...keysOf('Yes', 'No', LARGE), MaxRecvDataSegmentLength: '16384' };
    const { peer, command } = write(65_536, keys);
    peer.send(r2t(command, 0, 65_536));
    expect(lasts(peer.sent())).toEqual([false, false, false, true]);
  });

  it.each(['#6.1 (DataSN)', '#11.3 (Data-out DataSN)'])(
    '%s: DataSN begins at 0 in each sequence and grows by one',
    () => {
      const { peer, command } = write(4096, SOLICITED);
      peer.send(r2t(command, 0, 2048));
      expect(numbers(peer.sent())).toEqual([0, 1, 2, 3]);
      peer.send(r2t(command, 2048, 2048, 1));
      expect(numbers(peer.sent())).toEqual([0, 1, 2, 3]);
      peer.submit('write', 1024, { operation: 0x2a });
      const next = peer.sentOne(FROM.scsiCommand);
      expect(next.itt).not.toBe(command.itt);
      peer.send(r2t(next, 0, 1024));
      expect(numbers(peer.sent())).toEqual([0, 1]);
    },
  );

  it('#11.4 (Data-out Buffer Offset): offsets are exact and grow', () => {
    const { peer, command } = write(4096, SOLICITED);
    peer.send(r2t(command, 0, 2048));
    expect(offsets(peer.sent())).toEqual([0, 512, 1024, 1536]);
    peer.send(r2t(command, 2048, 2048, 1));
    const rest = peer.sent();
    expect(offsets(rest)).toEqual([2048, 2560, 3072, 3584]);
    expect(bytesOf(rest)).toEqual(patternOf(4096).subarray(2048));
  });

  it('#12.1 (R2T Received): one Data-Out answers it with tag, offset and length', () => {
    const { peer, command } = write(4096, keysOf('Yes', 'No'));
    peer.send(r2t(command, 0, 2048));
    const pdu = peer.sentOne(FROM.dataOut);
    expect(pdu).toMatchObject({ word20: TAG, word40: 0, itt: command.itt });
    expect(pdu.data).toHaveLength(2048);
  });

  it('#12.2 (R2T Received): several Data-Out answer it without gaps, F on the last one', () => {
    const { peer, command } = write(4096, SOLICITED);
    peer.send(r2t(command, 0, 4096));
    const pdus = peer.sent();
    expect(pdus.every(({ word20 }) => word20 === TAG)).toBe(true);
    expect(offsets(pdus)).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((index) => 512 * index));
    expect(lasts(pdus)).toEqual([...Array(7).fill(false), true]);
    expect(bytesOf(pdus)).toEqual(patternOf(4096));
  });

  it('#12.4 (Parallel Commands): R2Ts are answered in the order of their arrival', () => {
    const { peer, command } = write(1024, keysOf('Yes', 'No'));
    peer.submit('write', 1024, { operation: 0x2a, seed: 9 });
    const second = peer.sentOne(FROM.scsiCommand);
    peer.send(r2t(second, 0, 1024, 0, 2), r2t(command, 0, 1024, 0, 1));
    const pdus = peer.sent();
    expect(pdus.map(({ itt, word20 }) => [itt, word20])).toEqual([
      [second.itt, 2],
      [command.itt, 1],
    ]);
    expect(pdus[0]!.data).toEqual(patternOf(1024, 9));
  });
});

describe('UNH-IOL full feature phase: the command and its data', () => {
  it('#16.2.1 (Unsolicited Data): a transfer that is all immediate data has the F bit', () => {
    const { command, dataOuts } = write(4096, keysOf('Yes', 'Yes'));
    expect([command.data.length, command.word20, command.flags & F]).toEqual([4096, 4096, F]);
    expect(dataOuts).toEqual([]);
  });

  it.each(['#16.2.2 (Unsolicited Data)', '#16.3.1 (F bit)'])(
    '%s: with ImmediateData=No and InitialR2T=Yes the command is empty, and the last Data-Out has F',
    () => {
      const { peer, command, dataOuts } = write(2048, SOLICITED);
      expect([command.data.length, command.flags & WRITE, dataOuts]).toEqual([0, WRITE, []]);
      peer.send(r2t(command, 0, 2048));
      expect(lasts(peer.sent())).toEqual([false, false, false, true]);
    },
  );

  it('#16.2.3 (Unsolicited Data): with ImmediateData=No the command is empty, and Data-Out follow', () => {
    const { command, dataOuts } = write(2048, keysOf('No', 'No', SEGMENTS));
    expect([command.data.length, command.flags & WRITE, command.flags & F]).toEqual([0, WRITE, 0]);
    expect(lasts(dataOuts)).toEqual([false, false, false, true]);
  });

  it('#16.2.4 (Unsolicited Data): with both, FirstBurstLength bounds them together, F ends them', () => {
    const { command, dataOuts } = write(4096, keysOf('No', 'Yes', { ...SMALL, ...SEGMENTS }));
    expect([command.flags & WRITE, command.data.length]).toEqual([WRITE, 512]);
    expect(bytesOf([command, ...dataOuts]).length).toBeLessThanOrEqual(512);
    expect(((dataOuts.at(-1) ?? command).flags & F) !== 0).toBe(true);
  });

  it('#10.1 (Data-in Status): status in the last Data-In ends the command', () => {
    const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 } });
    const command = peer.submit('read', 1024);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const data = patternOf(1024);
    const dataIn = { opcode: OP.dataIn, itt };
    peer.send(
      { ...dataIn, flags: 0, data: data.subarray(0, 512) },
      { ...dataIn, flags: F | S, word36: 1, word40: 512, data: data.subarray(512) },
    );
    expect([command.outcome, command.status]).toEqual(['answered', 0]);
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).expStatSN).toBe(peer.statSN);
  });

  it('#11.1.2 (Data-In DataSegmentLength): an empty Data-In is not an error', () => {
    const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 } });
    const command = peer.submit('read', 512);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const dataIn = { opcode: OP.dataIn, itt, flags: 0 };
    peer.send(dataIn, { ...dataIn, flags: F | S, word36: 1, data: patternOf(512) });
    expect([command.outcome, peer.session.state]).toEqual(['answered', 'loggedIn']);
    expect(command.dataIn.toBuffer()).toEqual(patternOf(512));
  });
});
