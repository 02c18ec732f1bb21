import { execFile } from 'node:child_process';
import { release } from 'node:os';
import { errnoOf, UsageError } from '../base/errors.js';
import { type NbdAddon, toNbdKernelError } from './nbd-netlink.js';
import { readTextOrNull, SYSTEM_PATHS, type SystemPaths } from './nbd-sysfs.js';

/**
 * Whether this process can make `/dev/nbdX` here. `exitCode` is 27 if the kernel cannot, 13 if the
 * process may not (iscsi-nbd(8), EXIT STATUS). `reason` and `advice` are whole sentences.
 */
export type KernelSupport =
  | { readonly supported: true }
  | {
      readonly supported: false;
      readonly exitCode: 13 | 27;
      readonly reason: string;
      readonly advice: string;
    };

/** What the answer depends on; other values in tests. */
export interface SupportProbe {
  readonly paths: SystemPaths;
  readonly kernelRelease: string;
  /** Loads the module. Null when it worked, else what the command said. */
  loadModule(): Promise<string | null>;
}

const MODPROBE_MAX_MS = 30_000;
/** linux/capability.h */
const CAP_SYS_MODULE = 16;
const CAP_SYS_ADMIN = 21;

const WITHOUT_KERNEL =
  '`iscsi-nbd serve` exports the same disk on a unix socket and needs neither root nor the driver.';

/** Looks, and loads the module when that is all that is missing. */
export async function kernelSupport(
  addon: Pick<NbdAddon, 'nbdResolveFamily'>,
  probe: SupportProbe = systemProbe(),
): Promise<KernelSupport> {
  if (await hasFamily(addon)) return mayConnect(probe);
  if (await isLoaded(probe)) return refuseNamespace();
  const blocked = await whyNotLoadable(probe);
  if (blocked !== null) return blocked;
  const complaint = await probe.loadModule();
  if (complaint === null && (await hasFamily(addon))) return mayConnect(probe);
  if (complaint === null && (await isLoaded(probe))) return refuseNamespace();
  return explainModprobe(complaint ?? 'modprobe succeeded without loading it', probe);
}

/**
 * As `kernelSupport`, without a change to this host: a module that could be loaded counts as there.
 */
export async function kernelOutlook(
  addon: Pick<NbdAddon, 'nbdResolveFamily'>,
  probe: SupportProbe = { ...systemProbe(), loadModule: () => runModprobe('--dry-run') },
): Promise<KernelSupport> {
  if (await hasFamily(addon)) return mayConnect(probe);
  if (await isLoaded(probe)) return refuseNamespace();
  const blocked = await whyNotLoadable(probe);
  if (blocked !== null) return blocked;
  const complaint = await probe.loadModule();
  return complaint === null ? mayConnect(probe) : explainModprobe(complaint, probe);
}

/** Throws a UsageError that says what is missing, why, and what to do; 27 or 13. */
export async function requireKernelNbd(
  addon: Pick<NbdAddon, 'nbdResolveFamily'>,
  probe: SupportProbe = systemProbe(),
): Promise<void> {
  const support = await kernelSupport(addon, probe);
  if (support.supported) return;
  throw new UsageError(
    `No /dev/nbdX can be made here. ${support.reason} ${support.advice} ${WITHOUT_KERNEL}`,
    { code: 'ERR_NBD_UNSUPPORTED', exitCode: support.exitCode },
  );
}

function systemProbe(): SupportProbe {
  return { paths: SYSTEM_PATHS, kernelRelease: release(), loadModule: () => runModprobe() };
}

/** No devices in advance: they are made when they are connected. */
function runModprobe(...flags: readonly string[]): Promise<string | null> {
  const search = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
  const options = { env: { ...process.env, PATH: search }, timeout: MODPROBE_MAX_MS };
  return new Promise((resolve) => {
    execFile('modprobe', [...flags, 'nbd', 'nbds_max=0'], options, (error, _stdout, stderr) => {
      if (error === null) resolve(null);
      else if (error.code === 'ENOENT') resolve('the command modprobe (package kmod) is missing');
      else resolve(stderr.trim().split('\n').at(-1) || error.message);
    });
  });
}

async function hasFamily(addon: Pick<NbdAddon, 'nbdResolveFamily'>): Promise<boolean> {
  try {
    await addon.nbdResolveFamily();
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return false;
    // A kernel without netlink, or a sandbox that forbids it.
    if (['EPROTONOSUPPORT', 'EAFNOSUPPORT', 'EPERM', 'EACCES'].includes(errno)) return false;
    throw toNbdKernelError("asking for the kernel's NBD driver", error);
  }
}

async function isLoaded(probe: SupportProbe): Promise<boolean> {
  return (await readTextOrNull(`${probe.paths.sys}/module/nbd/parameters/nbds_max`)) !== null;
}

function refuseNamespace(): KernelSupport {
  return refuse(
    27,
    'The kernel has the NBD driver, but its control interface is only visible in the first ' +
      'network namespace, and this process is in another (a container, or `ip netns`).',
    'Run it on the host, or in a container with `--network host`.',
  );
}

async function mayConnect(probe: SupportProbe): Promise<KernelSupport> {
  if (!(await hasCapability(CAP_SYS_ADMIN, probe))) {
    return refuse(
      13,
      'The kernel has the NBD driver, but this process lacks CAP_SYS_ADMIN, which connecting a ' +
        'device takes.',
      'Run as root (`sudo`), or use the daemon (`iscsi-nbd.service`).',
    );
  }
  const uidMap = await readTextOrNull(`${probe.paths.proc}/self/uid_map`);
  if (uidMap !== null && !/^\s*0\s+0\s+4294967295\s*$/.test(uidMap)) {
    return refuse(
      13,
      'This process is root only in a user namespace (a rootless container), and the kernel ' +
        'does not allow NBD devices to be connected from there.',
      'Run as root on the host.',
    );
  }
  return { supported: true };
}

async function hasCapability(bit: number, probe: SupportProbe): Promise<boolean> {
  const status = await readTextOrNull(`${probe.paths.proc}/self/status`);
  const digits = /^CapEff:\s*([0-9a-f]+)$/m.exec(status ?? '')?.[1];
  return digits !== undefined && ((BigInt(`0x${digits}`) >> BigInt(bit)) & 1n) === 1n;
}

async function whyNotLoadable(probe: SupportProbe): Promise<KernelSupport | null> {
  if ((await readTextOrNull(`${probe.paths.proc}/modules`)) === null) {
    return refuse(
      27,
      `This kernel (${probe.kernelRelease}) was built without the NBD driver and without ` +
        'loadable modules, so the driver cannot be added.',
      'Boot a kernel with CONFIG_BLK_DEV_NBD, such as the standard one of the distribution.',
    );
  }
  const disabled = await readTextOrNull(`${probe.paths.proc}/sys/kernel/modules_disabled`);
  if (disabled?.trim() === '1') {
    return refuse(
      27,
      'The NBD driver is not loaded, and kernel.modules_disabled=1 forbids loading modules until ' +
        'the next boot.',
      'List nbd in /etc/modules-load.d/nbd.conf so that it is loaded at boot, and reboot.',
    );
  }
  if (!(await hasCapability(CAP_SYS_MODULE, probe))) {
    return refuse(
      13,
      'The NBD driver is not loaded, and this process may not load it (CAP_SYS_MODULE).',
      'Run `modprobe nbd nbds_max=0` as root on the host, then run this again as root.',
    );
  }
  return null;
}

function explainModprobe(complaint: string, probe: SupportProbe): KernelSupport {
  return refuse(
    27,
    `The NBD driver is not loaded and could not be: ${complaint}.`,
    `Install the modules of kernel ${probe.kernelRelease} (linux-image-… on Debian, ` +
      'linux-modules-extra-… on Ubuntu, kernel-modules-extra on Fedora; in a container, on the ' +
      'host), reboot if a newer kernel is already installed, and run `modprobe nbd nbds_max=0`.',
  );
}

function refuse(exitCode: 13 | 27, reason: string, advice: string): KernelSupport {
  return { supported: false, exitCode, reason, advice };
}
