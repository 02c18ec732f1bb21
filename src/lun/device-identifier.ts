import { listConfigured } from '../io/nbd-sysfs.js';

const IDENTIFIER = /^iscsi-nbd:([0-9a-f]{16}):(\d{1,8})$/;

/** Backend identifier of a device: what the kernel knows it by over the death of our process. */
export function deviceIdentifier(sessionId: string, lun: number): string {
  return `iscsi-nbd:${sessionId}:${lun}`;
}

/** LUNs of the session whose devices the kernel has. */
export async function devicesOf(sessionId: string): Promise<readonly number[]> {
  const luns: number[] = [];
  for (const { identifier } of await listConfigured()) {
    const found = IDENTIFIER.exec(identifier);
    if (found?.[1] === sessionId) luns.push(Number(found[2]));
  }
  return luns;
}
