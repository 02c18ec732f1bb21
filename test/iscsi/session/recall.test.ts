/** Requests that wait to be sent to a LUN when it reports that it may be another disk now. */
import { describe, expect, it } from 'vitest';
import type { ScsiCommand } from '../../../src/scsi/command.js';
import { FROM, type InitiatorPdu, OP, type TargetPdu } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

/** Fixed format sense data of UNIT ATTENTION, INQUIRY DATA HAS CHANGED, after its length. */
const INQUIRY_CHANGED = Buffer.from([
  0, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3f, 3, 0, 0, 0, 0,
]);

/** Two commands in flight, and one that waits for the depth. */
function bench() {
  const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 }, queueDepthMax: 2 });
  const commands = [peer.submit('none'), peer.submit('none'), peer.submit('none')];
  const [first, second] = peer.sent() as [InitiatorPdu, InitiatorPdu];
  return { peer, commands, waiting: commands[2] as ScsiCommand, first, second };
}

const good = ({ itt }: InitiatorPdu): TargetPdu => ({ opcode: OP.scsiResponse, itt, ttt: 0 });
const CHECK_CONDITION = 2;
const attention = ({ itt }: InitiatorPdu): TargetPdu => ({
  opcode: OP.scsiResponse,
  itt,
  ttt: 0,
  byte3: CHECK_CONDITION,
  data: INQUIRY_CHANGED,
});

describe('a command that waits to be sent', () => {
  it('a waiting command comes back as lost when its LUN is recalled, and is never sent', () => {
    const { peer, waiting, first, second } = bench();
    peer.session.flow.recall(waiting.lun);
    expect(waiting.outcome).toBe('lost');
    peer.send(good(first), good(second));
    expect(peer.sent()).toEqual([]);
  });

  it('a waiting command stays if another LUN is recalled, or if it is a control command', () => {
    const { peer, waiting, first } = bench();
    const question = peer.submit('none', 0, { isControl: true });
    peer.session.flow.recall({ upper: 0x00070000, lower: 0 });
    expect(waiting.outcome).toBe('pending');
    peer.session.flow.recall(waiting.lun);
    expect([waiting.outcome, question.outcome]).toEqual(['lost', 'pending']);
    expect(peer.sentOne(FROM.scsiCommand).itt).not.toBe(first.itt);
  });

  it('no command is sent between a CHECK CONDITION and the recall by the owner that receives it', () => {
    const { peer, commands, waiting, first, second } = bench();
    const [told] = commands as [ScsiCommand];
    const { lun } = told;
    // The owner of the first one recalls the LUN when it hears of the attention, as a unit does.
    told.owner.scsiCommandDone = () => peer.session.flow.recall(lun);
    peer.send(good(second), attention(first));
    expect(peer.sent()).toEqual([]);
    expect(waiting.outcome).toBe('lost');
  });

  it('the command is sent if the owner that received a CHECK CONDITION recalls nothing', () => {
    const { peer, waiting, first } = bench();
    peer.send(attention(first));
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(3);
    expect(waiting.outcome).toBe('pending');
  });
});
