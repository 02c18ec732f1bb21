import { CELL_BYTES, contentOf, valueIn, ZERO } from './cell-content.js';
import { COMMAND, type ModelClient, type ModelReply } from './model-client.js';
import type { World } from './world.js';

/** A request and, once there is one, its reply. */
export type Asked = { reply: ModelReply | null; readonly sentAtMs: number; answeredAtMs: number };

/** A client that thinks in cells and values, for tests that say what happens one by one. */
export class CellUser {
  readonly client: ModelClient;
  readonly lun: number;
  readonly #world: World;

  constructor(world: World, lun = 0) {
    this.#world = world;
    this.lun = lun;
    this.client = world.newClient(lun);
  }

  /** `count` cells from `cell` on get `value`. */
  write(cell: number, value: number, count = 1): Asked {
    const cells = Array.from({ length: count }, (_, index) => contentOf(cell + index, value));
    return this.#ask(COMMAND.write, cell, count, Buffer.concat(cells));
  }

  zero(cell: number, count = 1): Asked {
    return this.#ask(COMMAND.writeZeroes, cell, count);
  }

  flush(): Asked {
    return this.#ask(COMMAND.flush, 0, 0);
  }

  ask(cell: number, count = 1): Asked {
    return this.#ask(COMMAND.read, cell, count);
  }

  /** The value that a cell reads as, or what is wrong with it. */
  async read(cell: number): Promise<number | string> {
    const reply = await this.done(this.ask(cell));
    return reply.error === 0 ? valueIn(reply.data, 0, cell) : `errno ${reply.error}`;
  }

  /** Lets time pass until the reply has arrived; throws if it does not arrive. */
  async done(asked: Asked, withinMs = 120_000): Promise<ModelReply> {
    await this.#world.when(() => asked.reply !== null, withinMs);
    if (asked.reply === null) throw new Error(`no reply within ${withinMs} ms`);
    return asked.reply;
  }

  /** The client goes, whatever is under way. */
  leave(): void {
    this.#world.exporter.clients.delete(this.client);
    this.client.close();
  }

  #ask(command: number, cell: number, count: number, data?: Buffer): Asked {
    const asked: Asked = { reply: null, sentAtMs: this.#world.nowMs, answeredAtMs: 0 };
    const length = count * CELL_BYTES;
    const request = { command, flags: 0, offset: cell * CELL_BYTES, length };
    this.client.send(data === undefined ? request : { ...request, data }, (reply) => {
      asked.reply = reply;
      asked.answeredAtMs = this.#world.nowMs;
    });
    return asked;
  }
}

/** What the disk itself holds in a cell. */
export function valueOnDisk(world: World, cell: number, lun = 0): number | string {
  const disk = world.disks[lun];
  if (disk === undefined) throw new Error(`no LUN ${lun}`);
  return valueIn(disk.read(cell * CELL_BYTES, CELL_BYTES), 0, cell);
}

/** No cell of the disk was ever written. */
export function isUntouched(disk: {
  readonly sizeBytes: number;
  read: (at: number, length: number) => Buffer;
}): boolean {
  return disk.read(0, disk.sizeBytes).every((byte) => byte === ZERO);
}
