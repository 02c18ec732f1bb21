import type { BootTestOptions } from '../config/contract.js';
import type { BootPrograms } from './boot-test-programs.js';

/** Descriptors of the process that are ends of sockets: its serial console and its control. */
const CONSOLE_FD = 3;
const CONTROL_FD = 4;

/** QEMU's filter of system calls: what it needs to run an image that is not trusted. */
const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

/** The machine to make, apart from what the person chose. */
type MachineParts = {
  readonly programs: BootPrograms;
  readonly nbdSocket: string;
  readonly blockSizeBytes: number;
  /** The qcow2 file that takes the writes; `null`: the LUN does. */
  readonly overlay: string | null;
  /** A copy of the firmware's variables that the machine may write. */
  readonly uefiVariables: string | null;
};

/** The arguments of QEMU. Paths go into JSON, where a comma in them means nothing. */
export function qemuArguments(parts: MachineParts, options: BootTestOptions): string[] {
  const { accelerators } = parts.programs;
  const model = options.cpuModel ?? (accelerators[0] === 'kvm' ? 'host' : 'max');
  return [
    ...['-name', 'iscsi-nbd-boot-test', '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-sandbox', SANDBOX],
    ...accelerators.flatMap((name) => ['-accel', name]),
    ...['-machine', machineOf(parts), '-cpu', model],
    ...['-smp', String(options.cpus), '-m', `${options.memoryMiB}M`],
    // The machine stays as it is when its system ends, to be looked at.
    ...['-no-shutdown', '-action', 'panic=pause', '-device', 'pvpanic'],
    ...['-chardev', `socket,id=console,fd=${CONSOLE_FD}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=control,fd=${CONTROL_FD}`, '-mon', 'chardev=control,mode=control'],
    ...['-device', 'VGA', '-device', 'virtio-rng-pci'],
    ...(options.network === 'user' ? ['-nic', 'user,model=virtio-net-pci'] : ['-nic', 'none']),
    ...firmwareArguments(parts),
    ...diskArguments(parts, options),
  ];
}

/** `graphics=off` makes the BIOS show on the serial console what it shows on the screen. */
function machineOf({ programs }: MachineParts): string {
  const firmware = programs.uefi === undefined ? '' : ',pflash0=code,pflash1=variables';
  return `q35,graphics=off${firmware}`;
}

function firmwareArguments({ programs, uefiVariables }: MachineParts): string[] {
  if (programs.uefi === undefined || uefiVariables === null) return [];
  return [
    ...blockdev({
      'node-name': 'code',
      driver: 'file',
      filename: programs.uefi.code,
      ...READ_ONLY,
    }),
    ...blockdev({ 'node-name': 'variables', driver: 'file', filename: uefiVariables }),
  ];
}

const READ_ONLY = { 'read-only': true };

function diskArguments(parts: MachineParts, options: BootTestOptions): string[] {
  const { overlay, nbdSocket } = parts;
  const server = { type: 'unix', path: nbdSocket };
  const lun = { 'node-name': overlay === null ? 'disk' : 'lun', driver: 'nbd', server };
  const nodes = overlay === null ? blockdev(lun) : blockdev({ ...lun, ...READ_ONLY });
  if (overlay !== null) {
    const file = { driver: 'file', filename: overlay };
    // What is thrown away need not reach the medium.
    const cache = { 'no-flush': options.keepOverlayPath === undefined };
    const top = { 'node-name': 'disk', driver: 'qcow2', file, backing: 'lun', cache };
    nodes.push(...blockdev({ ...top, discard: 'unmap' }));
  }
  const size = parts.blockSizeBytes;
  const common = 'drive=disk,bootindex=0';
  const blocks = `${common},logical_block_size=${size},physical_block_size=${size}`;
  switch (options.disk) {
    case 'virtio':
      return [...nodes, '-device', `virtio-blk-pci,${blocks}`];
    case 'scsi':
      return [
        ...nodes,
        '-device',
        'virtio-scsi-pci,id=hba',
        '-device',
        `scsi-hd,bus=hba.0,${blocks}`,
      ];
    case 'sata':
      return [...nodes, '-device', `ide-hd,bus=ide.0,${common}`];
  }
}

function blockdev(node: Readonly<Record<string, unknown>>): string[] {
  return ['-blockdev', JSON.stringify(node)];
}
