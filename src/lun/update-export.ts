import { productError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { LunLifecycleOptions } from './lun-lifecycle-options.js';

/** The exporter's users are to see another size or write protection; false if they do not. */
export async function updateExport(
  unit: LogicalUnit,
  { turns, exporter, emit }: Pick<LunLifecycleOptions, 'turns' | 'exporter' | 'emit'>,
  isWanted: () => boolean,
): Promise<boolean> {
  try {
    await turns.run(async () => {
      if (isWanted()) await exporter().resized(unit);
    });
    return true;
  } catch (error) {
    const { message } = productError(error);
    const what = `LUN ${unit.lun} has another size or write protection`;
    emit({ event: 'warning', message: `${what}, which its users do not see: ${message}` });
    return false;
  }
}

/** The exporter's users lose the disk, for a reason that is reported at the end. */
export function removeExport(
  unit: LogicalUnit,
  { turns, exporter, emit }: Pick<LunLifecycleOptions, 'turns' | 'exporter' | 'emit'>,
  { reason, isWanted }: { readonly reason: string; readonly isWanted: () => boolean },
): void {
  turns
    .run(async () => {
      if (isWanted()) await exporter().remove(unit, reason);
    })
    .then(
      () => emit({ event: 'deviceRemoved', reason }),
      (error: unknown) => {
        const { message } = productError(error);
        const why = `${reason}; it could not be removed: ${message}`;
        emit({ event: 'deviceRemoved', reason: why });
      },
    );
}
