import { invariant, type ProtocolError } from '../../base/errors.js';
import type { LunField } from '../../scsi/command.js';
import { formatPortal, type PortalAddress, readPortal } from '../login/portal.js';
import { iscsiNameFault } from '../login/target-name.js';
import type { TextRequest, TextResponse } from '../pdu/login-pdu.js';
import { RESERVED_TAG } from '../pdu/pdu.js';
import {
  decodeText,
  encodeText,
  quoted,
  RESERVED_ANSWERS,
  splitText,
  TextCollector,
  type TextPair,
} from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

/** A target and where it listens; `portals` has at least one. */
export type DiscoveredTarget = { readonly name: string; readonly portals: PortalAddress[] };

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

/** RFC 7143 Appendix C (SendTargets Operation): all targets that this initiator may see. */
export const SEND_TARGETS_ALL: readonly TextPair[] = [['SendTargets', 'All']];

/**
 * The target records of a SendTargets answer, in its order; records of one name are joined. A
 * record that cannot be used is left out with a warning, so that it does not hide the others.
 * `via` is the portal that was asked: it stands for a target that gives no address, and for the
 * host of an address that is a wildcard.
 */
export function parseSendTargets(
  pairs: readonly TextPair[],
  via: PortalAddress,
): { readonly targets: DiscoveredTarget[]; readonly warnings: string[] } {
  const warnings: string[] = [];
  const found = new Map<string, PortalAddress[]>();
  const withoutUsableAddress = new Set<string>();
  let current: string | null = null;
  for (const [key, value] of pairs) {
    if (key === 'TargetName') {
      current = value;
      const fault = iscsiNameFault(value);
      if (fault !== null) warnings.push(`target name ${quoted(value)} left out: ${fault}`);
      else if (!found.has(value)) found.set(value, []);
    } else if (key === 'TargetAddress') {
      if (current === null) {
        throw brokenRule(
          'discovery-address-first',
          'a SendTargets answer with an address before any target',
        );
      }
      const portal = readPortal(value);
      if ('fault' in portal) {
        withoutUsableAddress.add(current);
        warnings.push(`address ${quoted(value)} left out: ${portal.fault}`);
      } else {
        addPortal(found.get(current), reachable(portal, via));
      }
    } else {
      throw unexpectedKey(key, value);
    }
  }
  const targets: DiscoveredTarget[] = [];
  for (const [name, portals] of found) {
    if (portals.length > 0) targets.push({ name, portals });
    else if (withoutUsableAddress.has(name)) warnings.push(`${name} has no usable address`);
    else targets.push({ name, portals: [{ host: via.host, port: via.port }] });
  }
  return { targets, warnings };
}

function addPortal(portals: PortalAddress[] | undefined, portal: PortalAddress): void {
  if (!portals) return;
  const text = formatPortal(portal);
  if (!portals.some((known) => formatPortal(known) === text)) portals.push(portal);
}

/** Targets that listen on all addresses may say so instead of naming one. */
function reachable(portal: PortalAddress, via: PortalAddress): PortalAddress {
  const isWildcard = portal.host === '0.0.0.0' || /^[0:]+$/.test(portal.host);
  return isWildcard ? { ...portal, host: via.host } : portal;
}

/** RFC 7143 Appendix C (SendTargets Operation): only names and addresses are permitted. */
function unexpectedKey(key: string, value: string): ProtocolError {
  if (key === 'SendTargets' && RESERVED_ANSWERS.has(value)) {
    return brokenRule('discovery-refused', `the target answers SendTargets with ${value}`);
  }
  return brokenRule('discovery-key', `key ${quoted(key)} in a SendTargets answer`);
}
