// Retains writes as fast as it can until it is killed: DIRECTORY. Write n has 512 to 8192 bytes, which
// say n, at offset n * 8192.
import { SlabPool } from '../../dist/base/slab.js';
import {
  RETAINED_INDEX_BYTES,
  RetainedIndex,
  RetainedKind,
} from '../../dist/bridge/retained/retained-index.js';
import { shareSlabs } from '../../dist/io/native.js';
import { RetainedStore } from '../../dist/lun/retained-store.js';

const SLAB_BYTES = 1 << 20;
const pool = new SlabPool({ slabsMax: 16, idleMax: 1 });
shareSlabs(pool);
const store = new RetainedStore({
  directory: process.argv[2] ?? '',
  bootId: 'boot',
  indexBytes: RETAINED_INDEX_BYTES,
  pool,
  onWarning: (message) => console.error(message),
});
const journal = store.open({ sessionId: '00112233445566aa', lun: 0, isDevice: true });
const index = new RetainedIndex(journal.memory());
journal.begin();
console.log('ready');

let slab = pool.acquire();
let filled = 0;
for (let n = 0; ; n += 1) {
  const length = 512 * (1 + (n % 16));
  if (filled + length > SLAB_BYTES) {
    pool.release(slab);
    slab = pool.acquire();
    filled = 0;
  }
  const words = new Float64Array(pool.buffer(slab).buffer, filled, length / 8);
  words.fill(n);
  index.begin(RetainedKind.data, n * 8192, length);
  index.piece(slab, filled, length);
  pool.retain(slab);
  index.commit(n);
  filled += length;
  // A flush covers all but the last few.
  if (n % 300 === 299) while (index.count > n % 7) index.dropOldest((old) => pool.release(old));
}
