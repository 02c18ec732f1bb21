import type { SlabPool } from '../../src/base/slab.js';
import {
  RETAINED_INDEX_BYTES,
  readRetainedIndex,
} from '../../src/bridge/retained/retained-index.js';
import type { RecoveredWrites, RetainedMemory } from '../../src/bridge/retained/retained-memory.js';

type Left = { readonly lun: number; readonly memory: Uint8Array; readonly pool: SlabPool };

/** What the processes of a world retain: it outlives them, as memory that the system keeps does. */
export class WorldRetained {
  #left: Left[] = [];

  /** What a process has of it; those before it are dead. */
  ofProcess(pool: SlabPool): RetainedMemory {
    const before = [...this.#left];
    return {
      begin: () => undefined,
      open: (lun) => {
        const memory = new Uint8Array(RETAINED_INDEX_BYTES);
        this.#left.push({ lun, memory, pool });
        return memory;
      },
      closed: (_lun, release) => release(),
      recover: (lun) => {
        const found: RecoveredWrites[] = [];
        for (const left of before) {
          if (left.lun !== lun || !this.#left.includes(left)) continue;
          const entries = readRetainedIndex(left.memory);
          if (entries === null) return null;
          const slab = (index: number) => left.pool.buffer(index);
          found.push({ entries, slab, drained: () => this.#remove(left) });
        }
        return found;
      },
    };
  }

  /** The next process knows nothing of it. */
  clear(): void {
    this.#left = [];
  }

  #remove(left: Left): void {
    this.#left = this.#left.filter((each) => each !== left);
  }
}
