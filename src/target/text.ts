import { ProtocolError } from '../base/errors.js';
import {
  CONTINUE,
  FINAL,
  flagsOf,
  type Pdu,
  TARGET_NO_TAG,
  TagCounter,
  targetLunField,
  taskTag,
  textResponse,
  word20,
} from './codec.js';
import { answerKey } from './negotiation.js';
import type { NodeState } from './node-state.js';
import type { ConnectionPort, TargetSession } from './session.js';
import type { Peer, TargetOptions } from './settings.js';
import { cutPieces, encodeKeys, type KeyPair, parseKeys } from './text-keys.js';

/** RFC 7143 §6.2 (Text Mode Negotiation) asks for 8192 bytes at least; this is the most. */
const TEXT_BYTES_MAX = 65_536;

type TextPlace = {
  readonly node: NodeState;
  readonly session: TargetSession;
  readonly connection: ConnectionPort;
  readonly peer: Peer;
};

/** The text exchange of one connection: RFC 7143 §11.10 (Text Request), §11.11 (Text Response). */
export class TargetTextExchange {
  #request: Buffer[] = [];
  #requestBytes = 0;
  /** Pieces of an answer that are still to be asked for. */
  #pieces: Buffer[] = [];
  #transferTag = TARGET_NO_TAG;
  readonly #tags = new TagCounter();

  requestArrived(pdu: Pdu, place: TextPlace): void {
    if (word20(pdu.header) === TARGET_NO_TAG) this.#reset();
    else if (word20(pdu.header) !== this.#transferTag) {
      throw new ProtocolError('11.10.4', 'Text Request with a Target Transfer Tag not given');
    }
    if (this.#pieces.length > 0) {
      this.#sendPiece(pdu, place);
      return;
    }
    this.#request.push(Buffer.from(pdu.data));
    this.#requestBytes += pdu.data.length;
    if (this.#requestBytes > TEXT_BYTES_MAX) {
      throw new ProtocolError('6.2', `text request over ${TEXT_BYTES_MAX} bytes`);
    }
    if (flagsOf(pdu.header) & CONTINUE) {
      this.#respond(pdu, Buffer.alloc(0), { flags: 0, place });
      return;
    }
    const answers = this.#answer(parseKeys(Buffer.concat(this.#request)), place);
    this.#request = [];
    this.#requestBytes = 0;
    const most = place.connection.parameters.initiatorMaxRecvDataSegmentLength;
    const pieceBytes = Math.min(most, place.node.faults.textPieceBytes ?? most);
    this.#pieces = cutPieces(encodeKeys(answers), pieceBytes);
    this.#sendPiece(pdu, place);
  }

  #reset(): void {
    this.#request = [];
    this.#requestBytes = 0;
    this.#pieces = [];
    this.#transferTag = TARGET_NO_TAG;
  }

  #sendPiece(pdu: Pdu, place: TextPlace): void {
    const piece = this.#pieces.shift() ?? Buffer.alloc(0);
    const more = this.#pieces.length > 0;
    this.#respond(pdu, piece, { flags: more ? CONTINUE : FINAL, place });
    if (!more) this.#transferTag = TARGET_NO_TAG;
  }

  #respond(
    pdu: Pdu,
    data: Buffer,
    how: { readonly flags: number; readonly place: TextPlace },
  ): void {
    const final = (how.flags & FINAL) !== 0;
    if (!final && this.#transferTag === TARGET_NO_TAG) this.#transferTag = this.#tags.next();
    const header = textResponse({
      flags: how.flags,
      lun: targetLunField(pdu.header),
      initiatorTaskTag: taskTag(pdu.header),
      targetTransferTag: final ? TARGET_NO_TAG : this.#transferTag,
    });
    how.place.connection.send(header, data, 'advances');
  }

  #answer(keys: readonly KeyPair[], place: TextPlace): KeyPair[] {
    const answers: KeyPair[] = [];
    for (const [key, value] of keys) {
      if (key === 'SendTargets') {
        answers.push(...sendTargets(value, place));
        continue;
      }
      if (key !== 'MaxRecvDataSegmentLength') {
        answers.push([key, key.startsWith('X') ? 'NotUnderstood' : 'Reject']);
        continue;
      }
      const answer = answerKey([key, value], {
        settings: place.node.negotiation,
        parameters: place.connection.parameters,
        discovery: place.session.target === null,
      });
      if (answer !== null) answers.push([key, answer]);
    }
    return answers;
  }
}

/** RFC 7143 Appendix C (SendTargets Operation): all, one by name, or the session's own. */
function sendTargets(value: string, place: TextPlace): KeyPair[] {
  const own = place.session.target;
  let listed: TargetOptions[];
  if (value === 'All' && own === null) listed = [...place.node.targets.values()];
  else if (value === '' && own !== null) listed = [own];
  else if (value !== 'All' && (own === null || own.name === value)) {
    const found = place.node.targets.get(value);
    listed = found ? [found] : [];
  } else return [['SendTargets', 'Reject']];
  return listed.flatMap((target) => [
    ['TargetName', target.name] as const,
    ...place.node
      .portalsOf(target, place.peer)
      .map(
        (portal) =>
          [
            'TargetAddress',
            `${bracketed(portal.address)}:${portal.port},${portal.portalGroupTag}`,
          ] as const,
      ),
  ]);
}

function bracketed(address: string): string {
  return address.includes(':') && !address.startsWith('[') ? `[${address}]` : address;
}
