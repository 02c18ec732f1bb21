/** UNH-IOL's full feature phase tests for initiators (version 0.1): an answer in several parts. */
import { describe, expect, it } from 'vitest';
import { QuirkLog } from '../../../src/iscsi/quirks/quirks.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../../../src/iscsi/session/send-targets.js';
import { TextExchange } from '../../../src/iscsi/session/text-exchange.js';

const RESERVED = 0xffffffff;
const NAME = 'TargetName=iqn.2001-04.com.example:a\0';
const VIA = { host: '192.0.2.1', port: 3260 };

function exchange() {
  const [met, initiatorTaskTag] = [[] as string[], 9];
  const quirks = new QuirkLog(({ quirk }) => met.push(quirk));
  const targetMaxRecvDataSegmentLength = 8192;
  const pairs = SEND_TARGETS_ALL;
  const machine = new TextExchange({
    pairs,
    initiatorTaskTag,
    quirks,
    targetMaxRecvDataSegmentLength,
  });
  machine.start();
  return { machine, met };
}

const answer = (text: string, final: boolean, targetTransferTag: number) => ({
  ...{ final, continued: false, lun: { upper: 0x00010000, lower: 0 }, initiatorTaskTag: 9 },
  ...{ targetTransferTag, data: Buffer.from(text) },
});

describe('UNH-IOL full feature phase: an answer in several parts', () => {
  it('#18.2 (Initiator Task Tag): the next request has both tags and the LUN of the answer', () => {
    const step = exchange().machine.responseReceived(answer(NAME, false, 0x1234));
    expect(step).toMatchObject({
      type: 'send',
      request: { initiatorTaskTag: 9, targetTransferTag: 0x1234, lun: { upper: 0x00010000 } },
    });
  });

  it('#18.3.2 (Target Transfer Tag): an answer that is not final and has no tag ends the exchange', () => {
    const { machine, met } = exchange();
    expect(machine.responseReceived(answer(NAME, false, RESERVED)).type).toBe('done');
    expect(met).toEqual(['text-end']);
  });

  it('#18.4 (Other Parameters): a key that was not asked for is reported and negotiates nothing', () => {
    const text = `${NAME}TargetAddress=192.0.2.1:3260,1\0MaxRecvDataSegmentLength=512\0`;
    const step = exchange().machine.responseReceived(answer(text, true, 5));
    if (step.type !== 'done') throw new Error('the exchange has not ended');
    const { targets, warnings } = parseSendTargets(step.pairs, VIA);
    expect(targets).toHaveLength(1);
    expect(warnings).toEqual([expect.stringContaining('MaxRecvDataSegmentLength')]);
  });
});
