import { invariant } from '../../base/errors.js';
import type { LunField } from '../../scsi/command.js';
import type { TextRequest, TextResponse } from '../pdu/login-pdu.js';
import { RESERVED_TAG } from '../pdu/pdu.js';
import { decodeText, encodeText, splitText, TextCollector, type TextPair } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

type TextStep =
  | { readonly type: 'send'; readonly request: TextRequest }
  | { readonly type: 'done'; readonly pairs: TextPair[] };

/** Room for some fifty thousand target records. */
const ANSWER_BYTES_MAX = 16 << 20;

/** Enough for that answer in data segments of the default length, and then some. */
const REQUESTS_MAX = 4096;

const NO_LUN: LunField = { upper: 0, lower: 0 };

/**
 * One text negotiation in the Full Feature Phase: RFC 7143 §11.10 (Text Request). `start` once,
 * then `responseReceived` until it is done. Throws ProtocolError.
 */
export class TextExchange {
  readonly #initiatorTaskTag: number;
  readonly #quirks: QuirkLog;
  readonly #collector = new TextCollector(ANSWER_BYTES_MAX);
  #partsLeft: Buffer[];
  #lastRequest: TextRequest | null = null;
  #requestCount = 0;

  constructor(options: {
    readonly pairs: readonly TextPair[];
    readonly initiatorTaskTag: number;
    readonly targetMaxRecvDataSegmentLength: number;
    readonly quirks: QuirkLog;
  }) {
    this.#quirks = options.quirks;
    this.#initiatorTaskTag = options.initiatorTaskTag;
    this.#partsLeft = splitText(encodeText(options.pairs), options.targetMaxRecvDataSegmentLength);
  }

  start(): TextRequest {
    invariant(this.#lastRequest === null, 'a text exchange is started once');
    return this.#send({ targetTransferTag: RESERVED_TAG, lun: NO_LUN });
  }

  responseReceived(response: TextResponse): TextStep {
    const request = this.#lastRequest;
    invariant(request, 'a text response before the request');
    const isEnd = isLastResponse(response, request, this.#quirks);
    if (request.continued && response.data.length > 0) {
      // RFC 7143 §6.2 (Text Mode Negotiation): a request with the C bit gets an empty answer.
      throw brokenRule(
        'text-continue-data',
        'a text request with the C bit got an answer with data',
      );
    }
    this.#collector.add(response.data);
    if (isEnd) {
      return { type: 'done', pairs: decodeText(this.#collector.take(), this.#quirks) };
    }
    return { type: 'send', request: this.#send(response) };
  }

  /**
   * RFC 7143 §11.11.4 (Target Transfer Tag): the next request copies tag and LUN. An empty one
   * has the F bit, as in the example of §11.10.4, for only then may the target finish.
   */
  #send(answered: { readonly targetTransferTag: number; readonly lun: LunField }): TextRequest {
    this.#requestCount += 1;
    if (this.#requestCount > REQUESTS_MAX) {
      throw brokenRule('text-requests', `a text exchange of more than ${REQUESTS_MAX} requests`);
    }
    const data = this.#partsLeft.shift() ?? Buffer.alloc(0);
    const continued = this.#partsLeft.length > 0;
    const request: TextRequest = {
      final: !continued,
      continued,
      lun: answered.lun,
      initiatorTaskTag: this.#initiatorTaskTag,
      targetTransferTag: answered.targetTransferTag,
      data,
    };
    this.#lastRequest = request;
    return request;
  }
}

/** Checks bits and tags as in RFC 7143 §11.11 (Text Response); true when nothing follows. */
function isLastResponse(response: TextResponse, request: TextRequest, quirks: QuirkLog): boolean {
  if (response.initiatorTaskTag !== request.initiatorTaskTag) {
    throw brokenRule('text-tag', 'a text response with another Initiator Task Tag');
  }
  if (response.final) {
    if (response.continued) {
      throw brokenRule('text-final-continue', 'a text response with both the F bit and the C bit');
    }
    if (!request.final) {
      throw brokenRule('text-final', 'a final text response to a request that was not final');
    }
    // RFC 7143 §11.10.4 (Target Transfer Tag): with the F bit the tag must be ignored.
    return true;
  }
  if (response.targetTransferTag !== RESERVED_TAG) return false;
  const what = 'a text response with neither F bit nor Target Transfer Tag';
  if (response.continued || !request.final) throw brokenRule('text-no-tag', what);
  // There is no way to ask for more, so that is all there is.
  quirks.met('text-end', `${what} ends the answer`);
  return true;
}
