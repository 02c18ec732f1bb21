import { UsageError } from '../base/errors.js';
import { LunFields } from '../bridge/lun-fields.js';
import { writeReportLunsCdb } from '../scsi/cdb.js';
import type { LunField } from '../scsi/command.js';
import { decodeReportLuns, lunField } from '../scsi/lun.js';
import { ScsiDataError } from '../scsi/response-data.js';
import { askPatiently, CDB_BYTES, type ScsiExecutor } from './disk-probe.js';

const REPORT_LUNS_BYTES = 8 + 8 * 4096;
/** The REPORT LUNS well-known logical unit (SPC-4 §8.2), which knows that command. */
export const REPORT_LUNS_WELL_KNOWN: LunField = { upper: 0xc101_0000, lower: 0 };

/** LUNs to use if the target does not report which it has, and the receiver of a warning. */
export type WithoutList = {
  readonly luns: readonly number[];
  readonly onWarning: (message: string) => void;
};

/**
 * The plain LUN numbers a target reports, in its order; `asker.lunFields` learns their fields. LUN
 * 0 itself may be one that was reported with another field; the question goes to eight zero bytes.
 * A LUN 0 that does not answer it (there is none, or it does not know the command) is followed by
 * the well-known LUN for it, and that by `withoutList`. Throws UsageError in its absence.
 */
export async function reportLuns(
  asker: ScsiExecutor,
  withoutList?: WithoutList,
): Promise<readonly number[]> {
  const refusals: string[] = [];
  for (const field of [lunField(0), REPORT_LUNS_WELL_KNOWN]) {
    const cdb = Buffer.alloc(CDB_BYTES);
    writeReportLunsCdb(cdb, REPORT_LUNS_BYTES);
    const question = { lun: 0, field, cdb, direction: 'read', length: REPORT_LUNS_BYTES } as const;
    const { action, words, data } = await askPatiently(asker, question);
    const fields = action === 'success' ? reportedFields(data) : words;
    if (typeof fields !== 'string') {
      return (asker.lunFields ?? new LunFields()).reported(fields);
    }
    refusals.push(fields);
  }
  const why = `the target does not say which LUNs it has: ${refusals[0]}`;
  if (withoutList === undefined) {
    throw new UsageError(why, { exitCode: 1, code: 'ERR_REPORT_LUNS' });
  }
  const { luns, onWarning } = withoutList;
  onWarning(`${why}; LUN ${luns.join(', ')} is asked what it is`);
  return luns;
}

/** The fields, or in words why there are none. */
function reportedFields(data: Buffer): readonly LunField[] | string {
  try {
    return decodeReportLuns(data).luns;
  } catch (error) {
    if (error instanceof ScsiDataError) return error.message;
    throw error;
  }
}
