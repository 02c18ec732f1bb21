import { FRAGMENT_NUMBERS } from '../../src/base/fragments.js';
import type { SendQueue } from '../../src/base/send-queue.js';
import type { SlabPool } from '../../src/base/slab.js';

/** Takes up to `most` bytes from the front of a queue, as a socket's `sendmsg` does. */
export function takeFrom(queue: SendQueue, pool: SlabPool, most: number): Buffer {
  const wanted = Math.min(most, queue.byteLength);
  const bytes = Buffer.allocUnsafe(wanted);
  let filled = 0;
  for (let entry = 0; filled < wanted; entry += 1) {
    const at = ((queue.firstIndex + entry) % queue.capacity) * FRAGMENT_NUMBERS;
    const [slab = 0, offset = 0, length = 0] = queue.table.subarray(at, at + FRAGMENT_NUMBERS);
    const take = Math.min(length, wanted - filled);
    pool.buffer(slab).copy(bytes, filled, offset, offset + take);
    filled += take;
  }
  queue.sent(wanted);
  return bytes;
}
