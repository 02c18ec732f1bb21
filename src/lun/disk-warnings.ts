import { isUnidentified, unidentifiedWords } from '../bridge/disk-identity.js';
import type { EventBody, SessionOptions } from '../config/contract.js';
import type { DiskFacts } from '../scsi/disk-facts.js';

/** What an operator should know of a disk that is being attached, one message each. */
export function diskWarnings(
  lun: number,
  facts: DiskFacts,
  { allowUnidentified = false }: Pick<SessionOptions, 'allowUnidentified'>,
): Extract<EventBody, { event: 'warning' }>[] {
  const unidentified = isUnidentified(facts) ? [unidentifiedWords({ allowUnidentified })] : [];
  return [...unidentified, ...facts.notes].map((words) => ({
    event: 'warning',
    message: `LUN ${lun}: ${words}`,
  }));
}
