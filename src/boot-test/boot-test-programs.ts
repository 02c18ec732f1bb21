import { access, constants, open } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import type { BootTestOptions } from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

/** UEFI for QEMU (OVMF): its code, and the variables a machine starts with. */
type UefiFirmware = { readonly code: string; readonly variables: string };

export type BootPrograms = {
  readonly qemu: string;
  /** Absent where the LUN itself is booted. */
  readonly qemuImg?: string;
  readonly setpriv: string;
  readonly uefi?: UefiFirmware;
  readonly accelerators: readonly ('kvm' | 'tcg')[];
};

const KVM = '/dev/kvm';
/** Where distributions have their QEMU when it is not among everybody's programs. */
const QEMU_NAMES = ['qemu-system-x86_64', '/usr/libexec/qemu-kvm', 'qemu-kvm'];
const UEFI_FIRMWARE: readonly UefiFirmware[] = [
  // Debian and Ubuntu.
  uefi('/usr/share/OVMF', 'OVMF_CODE_4M.fd', 'OVMF_VARS_4M.fd'),
  uefi('/usr/share/OVMF', 'OVMF_CODE.fd', 'OVMF_VARS.fd'),
  // Fedora, Arch Linux, openSUSE.
  uefi('/usr/share/edk2/ovmf', 'OVMF_CODE.fd', 'OVMF_VARS.fd'),
  uefi('/usr/share/edk2/x64', 'OVMF_CODE.4m.fd', 'OVMF_VARS.4m.fd'),
  uefi('/usr/share/qemu', 'ovmf-x86_64-code.bin', 'ovmf-x86_64-vars.bin'),
];

/** Everything a boot needs of this machine. Throws UsageError 27 that names what is missing. */
export async function findPrograms(
  options: Pick<BootTestOptions, 'searchPath' | 'write' | 'firmware' | 'accelerator'>,
): Promise<BootPrograms> {
  const find = (name: string) => findProgram(name, options.searchPath);
  const qemu = await firstOf(QEMU_NAMES.map((name) => () => find(name)));
  if (qemu === null) throw missing('qemu-system-x86_64', 'qemu-system-x86');
  const qemuImg = options.write ? null : await find('qemu-img');
  if (!options.write && qemuImg === null) throw missing('qemu-img', 'qemu-utils');
  const setpriv = await find('setpriv');
  if (setpriv === null) throw missing('setpriv', 'util-linux');
  const firmware = options.firmware === 'uefi' ? await findUefi() : undefined;
  return {
    qemu,
    ...(qemuImg === null ? {} : { qemuImg }),
    setpriv,
    ...(firmware === undefined ? {} : { uefi: firmware }),
    accelerators: await accelerators(options.accelerator),
  };
}

/** A program of the search path, or at an absolute path; `null` when there is none to execute. */
async function findProgram(name: string, searchPath: string): Promise<string | null> {
  const folders = searchPath.split(delimiter).filter(isAbsolute);
  const paths = isAbsolute(name) ? [name] : folders.map((folder) => join(folder, name));
  for (const path of paths) if (await isUsable(path, constants.X_OK)) return path;
  return null;
}

async function findUefi(): Promise<UefiFirmware> {
  for (const firmware of UEFI_FIRMWARE) {
    const { code, variables } = firmware;
    const isThere = await Promise.all([code, variables].map((path) => isUsable(path)));
    if (isThere.every(Boolean)) return firmware;
  }
  throw missing('UEFI firmware for QEMU', 'ovmf', '; or boot with --firmware bios');
}

async function accelerators(
  wanted: BootTestOptions['accelerator'],
): Promise<BootPrograms['accelerators']> {
  if (wanted === 'tcg') return ['tcg'];
  const fault = await kvmFault();
  if (wanted === 'auto') return fault === null ? ['kvm', 'tcg'] : ['tcg'];
  if (fault === null) return ['kvm'];
  throw new UsageError(
    `--accel kvm: ${fault}. Load the module kvm_intel or kvm_amd, become a member of the group ` +
      'kvm, or omit the flag: QEMU then emulates, which is slower.',
    { exitCode: EXIT_CODES.notSupported.code, code: 'ERR_NO_KVM' },
  );
}

async function kvmFault(): Promise<string | null> {
  if (process.arch !== 'x64') return `this is a machine of type ${process.arch}, not x64`;
  try {
    const file = await open(KVM, 'r+');
    await file.close();
    return null;
  } catch (error) {
    return `${KVM} cannot be opened (${codeOf(error)})`;
  }
}

async function isUsable(path: string, mode: number = constants.R_OK): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}

async function firstOf(tries: readonly (() => Promise<string | null>)[]): Promise<string | null> {
  for (const attempt of tries) {
    const found = await attempt();
    if (found !== null) return found;
  }
  return null;
}

function uefi(folder: string, code: string, variables: string): UefiFirmware {
  return { code: join(folder, code), variables: join(folder, variables) };
}

function missing(what: string, debianPackage: string, or = ''): UsageError {
  return new UsageError(
    `boot-test needs ${what}, which is not on this machine. ` +
      `Install it (on Debian: apt-get install ${debianPackage})${or}.`,
    { exitCode: EXIT_CODES.notSupported.code, code: 'ERR_PROGRAM_MISSING' },
  );
}
