import type { DiskFacts } from './disk-facts.js';
import type { OptionalPart } from './fact-queries.js';

/**
 * Facts of a disk with the parts that could not be read now taken from what was known of it. What
 * was never read stays unread. Whether it is the same disk is for the caller to find out.
 */
export function completedFacts(found: DiskFacts, known: DiskFacts): DiskFacts {
  const { unread, ...facts } = found;
  if (unread === undefined) return found;
  const isUnread = (...parts: readonly OptionalPart[]) =>
    parts.some((part) => unread.includes(part));
  const { readOnly, writeCacheEnabled, dpoFua } = known;
  const left = unread.filter((part) => known.unread?.includes(part));
  return {
    ...facts,
    ...(isUnread('serial') ? { serial: known.serial } : {}),
    ...(isUnread('identifiers') ? { identifiers: known.identifiers } : {}),
    ...(isUnread('limits') ? { limits: known.limits } : {}),
    ...(isUnread('limits', 'provisioning', 'capacity16') ? { thin: known.thin } : {}),
    ...(isUnread('capacity16') ? { physicalBlockExponent: known.physicalBlockExponent } : {}),
    ...(isUnread('characteristics') ? { rotational: known.rotational } : {}),
    ...(isUnread('mode') ? { readOnly, writeCacheEnabled, dpoFua } : {}),
    ...(left.length === 0 ? {} : { unread: left }),
  };
}
