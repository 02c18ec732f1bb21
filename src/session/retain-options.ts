import type { RetainOptions } from '../bridge/logical-unit.js';
import type { RetainedShare } from '../bridge/retained/retained-memory.js';
import type { BlockSessionOptions } from './block-session-options.js';

const RETAINED_BYTES_MAX = 64 << 20;

/**
 * How acknowledged writes to a LUN are retained; undefined if they are not. A shared disk may have
 * newer writes of others, over which nothing older may be written again.
 */
export function retainOptions(
  lun: number,
  { options, retained }: Pick<BlockSessionOptions, 'options' | 'retained'>,
  share: RetainedShare,
): RetainOptions | undefined {
  const { retainWrites = 'auto', retainedBytesMax, shared, readOnly } = options;
  if (retainWrites === 'never' || shared === true || readOnly) return undefined;
  retained?.begin(lun);
  return {
    bytesMax: retainedBytesMax ?? RETAINED_BYTES_MAX,
    isAlways: retainWrites === 'always',
    share,
    memory: () => retained?.open(lun) ?? null,
    closed: (release) => (retained === undefined ? release() : retained.closed(lun, release)),
  };
}
