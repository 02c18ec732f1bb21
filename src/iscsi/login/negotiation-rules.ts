import { invariant } from '../../base/errors.js';
import { parseBooleanValue, parseListOfValues, parseNumericalValue, quoted } from '../pdu/text.js';
import { brokenRule } from '../quirks/quirks.js';
import type { KeyRow, KeyRule } from './negotiation-keys.js';

/**
 * The result functions of RFC 7143 §13 (Login/Text Operational Text Keys), from both ends: what a
 * reply may be, and what we answer to a proposal.
 */

/**
 * The value that `reply` puts in force for a key we offered, or null when the target rejected
 * the key or called it irrelevant, so that its default holds. For declared keys `reply` is the
 * declaration. Throws ProtocolError for anything the offer does not allow.
 */
export function checkReply(exchange: {
  readonly key: string;
  readonly row: KeyRow;
  readonly offered: string;
  readonly reply: string;
}): string | null {
  const { key, row, offered, reply } = exchange;
  // RFC 7143 §6.2 (Text Mode Negotiation): both leave the key at its current value.
  if (reply === 'Reject' || reply === 'Irrelevant') return null;
  if (reply === 'NotUnderstood') {
    if (row.later) return null;
    throw brokenRule('key-not-understood', `the target does not understand ${key}, which all must`);
  }
  const fault = replyFault(row.rule, offered, reply);
  if (fault !== null) {
    throw brokenRule('reply-outside', `${key}=${quoted(reply)} from the target ${fault}`, {
      section: row.section,
    });
  }
  // Numbers may come in hexadecimal; they are kept as decimals.
  return isNumeric(row.rule) ? `${parseNumericalValue(reply)}` : reply;
}

function isNumeric(rule: KeyRule): boolean {
  return rule.kind === 'number' || rule.kind === 'declaredNumber';
}

function replyFault(rule: KeyRule, offered: string, reply: string): string | null {
  switch (rule.kind) {
    case 'declaredText': {
      const bytes = Buffer.byteLength(reply, 'utf8');
      return bytes > rule.bytesMax ? `has ${bytes} bytes, over ${rule.bytesMax}` : null;
    }
    case 'declaredNumber':
      return rangeFault(rule, parseNumericalValue(reply));
    case 'number': {
      const value = parseNumericalValue(reply);
      const limit = Number(offered);
      if (value !== null && rule.choose === 'min' && value > limit) {
        return `exceeds the ${offered} offered, of which the minimum is to be taken`;
      }
      if (value !== null && rule.choose === 'max' && value < limit) {
        return `is below the ${offered} offered, of which the maximum is to be taken`;
      }
      return rangeFault(rule, value);
    }
    case 'boolean':
      if (parseBooleanValue(reply) === null) return 'is neither Yes nor No';
      return isDecidedByProposal(rule, offered) && reply !== offered
        ? `contradicts the ${offered} offered, which decides alone`
        : null;
    case 'list':
      // RFC 7143 §6.2.1 (List Negotiations): a value not proposed is a protocol error.
      return offered.split(',').includes(reply) ? null : `is not among the ${offered} offered`;
    case 'obsolete':
      return 'was not offered';
  }
}

function rangeFault(
  rule: { readonly min: number; readonly max: number },
  value: number | null,
): string | null {
  if (value === null) return 'is no number';
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
