import { join } from 'node:path';
import type { DevicePlace } from '../io/device-symlinks.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import { DeviceExporter } from '../lun/device-exporter.js';
import { devicesOf } from '../lun/device-identifier.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import type { LunExporter } from '../lun/lun-exporter.js';
import { SocketExporter } from '../lun/socket-exporter.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { BlockSession } from '../session/block-session.js';

/** How the disks of Data and Boot sessions reach their users. */
export type ExportPlan =
  | { readonly kind: 'devices' }
  | { readonly kind: 'sockets'; readonly directory: string };

export type ExportOptions = {
  readonly targetName: string;
  readonly portal: PortalAddress;
  readonly onInUse: (place: { lun: number; device: string }, holders: string) => void;
  /** Writes down the parts of a device before the kernel has it. */
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
  stack: BlockSession,
  options: ExportOptions,
): SessionExports {
  const { resources, sessionId } = stack;
  if (plan.kind === 'sockets') {
    const exporter = new SocketExporter({
      path: join(plan.directory, `${sessionId}.sock`),
      resources,
      isSingle: false,
      description: options.targetName,
    });
    const all = { force: true, isServing: () => false, unused: () => undefined };
    return { exporter, opened: () => exporter.listen(), leave: () => exporter.close(all) };
  }
  const exporter = new DeviceExporter({
    resources,
    sessionId,
    onLinkLost: (unit, reason) => stack.deviceLinkLost(unit, reason),
    onInUse: options.onInUse,
    onWarning: (message) => stack.warn(message),
    keep: options.keep,
    names: {
      portal: options.portal,
      targetName: options.targetName,
      places: (lun) => placesOf(stack, lun, options.targetName),
    },
  });
  return { exporter, opened: async () => {}, leave: () => exporter.leave() };
}

/** Where a LUN is reached over its paths. */
function placesOf({ paths }: BlockSession, lun: number, targetName: string): DevicePlace[] {
  return (paths?.members ?? []).flatMap((member) => {
    const unit = member.other?.units.find((each) => each.lun === lun);
    if (!member.reaches(lun)) return [];
    const at = { targetName: member.other?.targetName ?? targetName, lun: unit?.otherLun ?? lun };
    return [{ ...member.portal, ...at }];
  });
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
