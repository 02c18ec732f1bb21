import { join } from 'node:path';
import type { PortalAddress } from '../iscsi/login/portal.js';
import { DeviceExporter } from '../lun/device-exporter.js';
import { devicesOf } from '../lun/device-identifier.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import type { LunExporter } from '../lun/lun-exporter.js';
import { SocketExporter } from '../lun/socket-exporter.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { SessionStack } from '../session/session-stack.js';

/** How the disks of Data and Boot sessions reach their users. */
export type ExportPlan =
  | { readonly kind: 'devices' }
  | { readonly kind: 'sockets'; readonly directory: string };

export type ExportWishes = {
  readonly targetName: string;
  readonly portal: PortalAddress;
  readonly onInUse: (place: { lun: number; device: string }, holders: string) => void;
  /** Writes down what a device is made of, before the kernel is told. */
  readonly keep: (lun: number, facts: DiskFacts) => Promise<void>;
};

export type SessionExports = {
  readonly exporter: LunExporter;
  readonly opened: () => Promise<void>;
  /** Leaves what is there to the process that comes next; no request is answered after it. */
  readonly leave: () => Promise<void>;
};

/** What the disks of one session are exported by. */
export function exportsOf(
  plan: ExportPlan,
  stack: SessionStack,
  wishes: ExportWishes,
): SessionExports {
  const { resources, sessionId } = stack;
  if (plan.kind === 'sockets') {
    const exporter = new SocketExporter({
      path: join(plan.directory, `${sessionId}.sock`),
      resources,
      isSingle: false,
      description: wishes.targetName,
    });
    const all = { force: true, isServing: () => false, unused: () => undefined };
    return { exporter, opened: () => exporter.listen(), leave: () => exporter.close(all) };
  }
  const exporter = new DeviceExporter({
    resources,
    sessionId,
    onLinkLost: (unit, reason) => stack.deviceLinkLost(unit, reason),
    onInUse: wishes.onInUse,
    onWarning: (message) => stack.warn(message),
    keep: wishes.keep,
    names: { portal: wishes.portal, targetName: wishes.targetName },
  });
  return { exporter, opened: async () => {}, leave: async () => exporter.leave() };
}

/** Those of `disks` whose devices, made by a process before this one, wait in the kernel. */
export async function waitingDisks(
  plan: ExportPlan,
  sessionId: string,
  disks: readonly FoundDisk[],
): Promise<readonly FoundDisk[]> {
  if (plan.kind === 'sockets') return [];
  const luns = await devicesOf(sessionId);
  return disks.filter(({ lun }) => luns.includes(lun));
}
