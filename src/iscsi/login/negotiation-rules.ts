import { invariant } from '../../base/errors.js';
import { parseBooleanValue, parseListOfValues, parseNumericalValue, quoted } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { KeyRow, KeyRule } from './negotiation-keys.js';

/**
 * The result functions of RFC 7143 §13 (Login/Text Operational Text Keys), from both ends: what a
 * reply may be, and what we answer to a proposal.
 */

/**
 * The value that `reply` puts in force for a key we offered, or null where its default holds: the
 * target called the key irrelevant. A reply that the offer does not allow gives the more cautious
 * of both, if there is one. For declared keys `reply` is the declaration, and null stands for none.
 * Throws ProtocolError for a reply that no value is safe with.
 */
export function judgeReply(
  exchange: {
    readonly key: string;
    readonly row: KeyRow;
    readonly offered: string;
    readonly reply: string;
  },
  quirks: QuirkLog,
): string | null {
  const { key, row, offered, reply } = exchange;
  if (reply === 'Irrelevant') return null;
  if (reply === 'Reject' || reply === 'NotUnderstood') {
    // RFC 7143 §6.2 (Text Mode Negotiation): both leave the key at its current value.
    if (row.later) return null;
    if (reply === 'Reject' && isDigest(key) && offered === 'None') {
      throw brokenRule('digest-none-refused', `the target answered ${key}=None with Reject`);
    }
    if (reply === 'NotUnderstood') {
      quirks.met('key-not-understood', `the target does not understand ${key}, which all must`);
    }
    return cautious(row.rule, offered, row.defaultValue);
  }
  const { value, fault } = judge(row.rule, offered, reply, key);
  const what = `${key}=${quoted(reply)} from the target ${fault}`;
  if (value === undefined) throw brokenRule('reply-outside', what, { section: row.section });
  if (fault === null) return value;
  quirks.met('reply-clamped', `${what}; ${value ?? 'no value'} is used`, row.section);
  return value;
}

function isDigest(key: string): boolean {
  return key === 'HeaderDigest' || key === 'DataDigest';
}

/** What a reply means: the value in force, and what is wrong with it. */
type Judged = {
  /** Undefined: none is safe. */
  readonly value: string | null | undefined;
  readonly fault: string | null;
};

const fine = (value: string): Judged => ({ value, fault: null });

function judge(rule: KeyRule, offered: string, reply: string, key: string): Judged {
  switch (rule.kind) {
    case 'declaredText': {
      const bytes = Buffer.byteLength(reply, 'utf8');
      if (bytes <= rule.bytesMax) return fine(reply);
      return { value: null, fault: `has ${bytes} bytes, over ${rule.bytesMax}` };
    }
    case 'declaredNumber':
      return judgeDeclared(rule, reply, key);
    case 'number':
      return judgeNumber(rule, Number(offered), reply, key);
    case 'boolean':
      if (parseBooleanValue(reply) === null) {
        return { value: undefined, fault: 'is neither Yes nor No' };
      }
      if (!isDecidedByProposal(rule, offered) || reply === offered) return fine(reply);
      return {
        // Data out of order could not be put in its place.
        value: IN_ORDER.has(key) ? undefined : offered,
        fault: `contradicts the ${offered} offered, which decides alone`,
      };
    case 'list':
      if (offered.split(',').includes(reply)) return fine(reply);
      // RFC 7143 §6.2.1 (List Negotiations): a value not proposed is a protocol error. That a
      // digest is refused which the operator requires is reported in the operator's words.
      if (isDigest(key) && reply === 'None') return fine(reply);
      return { value: undefined, fault: `is not among the ${offered} offered` };
    case 'obsolete':
      return { value: undefined, fault: 'was not offered' };
  }
}

const IN_ORDER: ReadonlySet<string> = new Set(['DataPDUInOrder', 'DataSequenceInOrder']);

/** Numbers may come in hexadecimal; they are kept as decimals. */
function judgeDeclared(rule: NumberRange, reply: string, key: string): Judged {
  const number = parseNumericalValue(reply);
  const fault = rangeFault(rule, number);
  if (fault === null) return fine(`${number}`);
  // Jiva's group is -1: it has none that could be compared.
  if (key === 'TargetPortalGroupTag') return { value: null, fault };
  if (number !== null && number > rule.max) return { value: `${rule.max}`, fault };
  return { value: number === 0 ? null : undefined, fault };
}

type NumberRange = { readonly min: number; readonly max: number };

function judgeNumber(
  rule: Extract<KeyRule, { kind: 'number' }>,
  offered: number,
  reply: string,
  key: string,
): Judged {
  const number = parseNumericalValue(reply);
  if (number === null) return { value: undefined, fault: 'is not a number' };
  const isAllowed = rule.choose === 'min' ? number <= offered : number >= offered;
  const range = rangeFault(rule, number);
  if (isAllowed && range === null) return fine(`${number}`);
  const bound = rule.choose === 'min' ? 'maximum' : 'minimum';
  const fault = range ?? `is beyond the ${offered} offered, which is the ${bound}`;
  // A target that recovers more than we do would wait for requests that never come.
  if (key === 'ErrorRecoveryLevel') return { value: undefined, fault };
  // Zero of a length says that nothing may be sent, which no length in the range can say.
  if (number < rule.min && rule.min > 1) return { value: undefined, fault };
  const inRange = Math.min(Math.max(number, rule.min), rule.max);
  const chosen = rule.choose === 'min' ? Math.min : Math.max;
  return { value: `${chosen(inRange, offered)}`, fault };
}

/** The value of the two with which less is sent or assumed. */
export function cautious(rule: KeyRule, one: string, other: string): string | null {
  switch (rule.kind) {
    case 'number': {
      const chosen = rule.choose === 'min' ? Math.min : Math.max;
      return `${chosen(Number(one), Number(other))}`;
    }
    case 'boolean': {
      const decisive = rule.choose === 'and' ? 'No' : 'Yes';
      return one === decisive ? one : other;
    }
    default:
      return null;
  }
}

function rangeFault(rule: NumberRange, value: number | null): string | null {
  if (value === null) return 'is not a number';
  return value < rule.min || value > rule.max ? `is not ${rule.min} to ${rule.max}` : null;
}

/**
 * RFC 7143 §6.2.2 (Simple-Value Negotiations): No with AND and Yes with OR are the result
 * whatever the other side thinks, so an answer is optional.
 */
export function isDecidedByProposal(rule: KeyRule, proposed: string): boolean {
  return rule.kind === 'boolean' && proposed === (rule.choose === 'and' ? 'No' : 'Yes');
}

/**
 * Our answer to a proposal of the target for a key we have not offered; `preferred` is what we
 * would have proposed. An inadmissible proposal gets Reject (RFC 7143 §6.2.2 (Simple-Value
 * Negotiations)).
 */
export function answerProposal(rule: KeyRule, proposed: string, preferred: string): string {
  switch (rule.kind) {
    case 'number': {
      const value = parseNumericalValue(proposed);
      if (value === null || rangeFault(rule, value) !== null) return 'Reject';
      const chosen = rule.choose === 'min' ? Math.min : Math.max;
      return `${chosen(value, Number(preferred))}`;
    }
    case 'boolean': {
      if (parseBooleanValue(proposed) === null) return 'Reject';
      return isDecidedByProposal(rule, proposed) ? proposed : preferred;
    }
    case 'list': {
      const acceptable = preferred.split(',');
      return parseListOfValues(proposed)?.find((value) => acceptable.includes(value)) ?? 'Reject';
    }
    case 'obsolete':
      // RFC 7143 §13.25 (Obsoleted Keys): Reject, never NotUnderstood.
      return 'Reject';
    case 'declaredNumber':
    case 'declaredText':
      invariant(false, 'declarations have no answer');
  }
}
