import { networkInterfaces } from 'node:os';
import { kernelOutlook } from '../io/nbd-support.js';
import { readTextOrNull, SYSTEM_PATHS } from '../io/nbd-sysfs.js';
import { nbdAddon } from '../lun/device-exporter.js';
import type { CheckReport } from './check-report.js';

/** Whether this host can make devices, and what it is connected to the target with. */
export async function checkHost(localAddress: string | null): Promise<CheckReport['host']> {
  const support = await kernelOutlook(nbdAddon);
  const name = localAddress === null ? null : interfaceOf(localAddress);
  const place = `${SYSTEM_PATHS.sys}/class/net/${name}/mtu`;
  const mtu = name === null ? null : await readTextOrNull(place);
  return {
    canAttach: support.supported,
    whyNot: support.supported ? null : `${support.reason} ${support.advice}`,
    localAddress,
    interface: name,
    mtuBytes: mtu === null ? null : Number(mtu.trim()),
  };
}

function interfaceOf(address: string): string | null {
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (addresses?.some((one) => one.address === address) === true) return name;
  }
  return null;
}
