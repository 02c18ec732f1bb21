/** Disks of an embedded target that answer a part of the commands with errors, and their `serve`. */
import { afterEach } from 'vitest';
import type { ProductEvent } from '../../src/config/contract.js';
import { TargetDisk } from '../../src/target/disk.js';
import type { CommandContext, CommandFault } from '../../src/target/faults.js';
import { type EmbeddedTarget, embeddedTarget } from './embedded-target.js';
import { type Served, serveUrl } from './served.js';

export const MIB = 1 << 20;
export const NAME = 'iqn.2001-04.com.example:trouble';
export const OPCODE = { testUnitReady: 0x00, inquiry: 0x12, reportLuns: 0xa0 } as const;
export const sense = (key: number, asc: number, ascq: number) => ({ sense: { key, asc, ascq } });
export const BECOMING_READY = sense(0x02, 0x04, 0x01);
export const STANDBY = sense(0x02, 0x04, 0x0b);

/** What the test that runs has to close, the last first. */
export const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

export const disk = (serial: string, options = {}) =>
  TargetDisk.ram({ sizeBytes: MIB, serial, ...options });

export async function start(luns: Readonly<Record<number, TargetDisk>>): Promise<EmbeddedTarget> {
  const target = await embeddedTarget({ name: NAME, luns });
  closing.push(() => target[Symbol.asyncDispose]());
  return target;
}

export async function serve(url: string, options = {}): Promise<Served> {
  const served = await serveUrl(url, { reconnectIntervalSeconds: 0.2, ...options });
  closing.push(() => served[Symbol.asyncDispose]());
  return served;
}

/**
 * LUN `at` answers so to all but INQUIRY and REPORT LUNS, or to what `isMeant` says, until the
 * returned function is called.
 */
export function answer(
  target: EmbeddedTarget,
  at: number,
  reply: CommandFault,
  isMeant = ({ opcode }: CommandContext) =>
    opcode !== OPCODE.inquiry && opcode !== OPCODE.reportLuns,
): () => void {
  target.node.faults.onCommand = (context) =>
    context.lun === at && isMeant(context) ? reply : undefined;
  return () => {
    target.node.faults.onCommand = undefined;
  };
}

export const warningsOf = (events: readonly ProductEvent[]) =>
  events.flatMap((one) => (one.event === 'warning' ? [one.message] : []));
