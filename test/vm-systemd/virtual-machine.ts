/** The process that is a virtual machine, and the line over which its agent takes commands. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * `6.1`: QEMU without KVM, which emulates two processors and runs anywhere. `uml`: user-mode Linux, a
 * program that runs everything but system calls at the host's own speed; it needs ptrace.
 */
export type Kernel = '6.1' | 'uml';

export interface VirtualMachine {
  readonly process: ChildProcess;
  readonly agent: Duplex;
  /** The command that ends the machine from within. */
  readonly powerOff: string;
}

/** Of systemd and the kernel, for both. */
const KERNEL_LINE = 'loglevel=4 panic=-1 systemd.show_status=0 audit=0';
const NO_CHECKS = 'no_timer_check nokaslr mitigations=off';
/** acpi_pm: on a busy machine the kernel measures the TSC wrongly; its seconds are too short. */
const EMULATOR_LINE = `console=ttyS0 ${KERNEL_LINE} clocksource=acpi_pm ${NO_CHECKS}`;

/** Starts what scripts/vm/system has made in `folder`. Rejects if the machine ends at once. */
export function startMachine(folder: string, kernel: Kernel): Promise<VirtualMachine> {
  return kernel === 'uml' ? startUserMode(folder) : startEmulator(folder);
}

/** pdeathsig: should the test be killed, the machine goes as well. */
function start(folder: string, command: readonly string[], extra: readonly 'pipe'[] = []) {
  const log = openSync(join(folder, 'machine.log'), 'a');
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
    stdio: ['ignore', log, log, ...extra],
  });
  closeSync(log);
  return child;
}

/**
 * As in scripts/vm/run: one processor, since the program and its guests' processes take turns, and a
 * namespace of processes that ends with it. The agent has a serial line, and slirp is the network.
 */
async function startUserMode(folder: string): Promise<VirtualMachine> {
  const command = `unshare --pid --fork --kill-child --mount-proc taskset -c 0
    ${join(folder, 'vmlinux')} mem=1024M ubd0=${join(folder, 'disk.ext4')} root=/dev/ubda rw
    con=null con0=null,fd:1 ssl=null ssl0=fd:3 eth0=slirp,,/usr/bin/slirp-fullbolt`
    .trim()
    .split(/\s+/);
  const process = start(folder, [...command, ...KERNEL_LINE.split(' ')], ['pipe']);
  return { process, agent: process.stdio[3] as Duplex, powerOff: 'systemctl --no-block poweroff' };
}

async function startEmulator(folder: string): Promise<VirtualMachine> {
  const path = (name: string) => join(folder, name);
  // TCG everywhere, as in scripts/vm/run. cache=unsafe: the guest reboots, not the host.
  const command = `qemu-system-x86_64
    -name iscsi-nbd-systemd -accel tcg,thread=multi -cpu max -smp 2 -m 1024
    -nodefaults -no-user-config -no-reboot -display none
    -kernel ${path('vmlinux')} -initrd ${path('initrd')}
    -drive file=${path('disk.ext4')},format=raw,if=virtio,cache=unsafe
    -netdev user,id=net -device virtio-net-pci,netdev=net,romfile=
    -serial file:${path('console.log')}
    -chardev socket,id=agent,path=${path('agent.sock')},server=on,wait=off
    -device virtio-serial-pci,max_ports=2 -device virtserialport,chardev=agent,nr=1`
    .trim()
    .split(/\s+/);
  const process = start(folder, [...command, '-append', EMULATOR_LINE]);
  for (;;) {
    const agent = connect(path('agent.sock'));
    if (await isOpen(agent)) {
      return { process, agent, powerOff: 'systemctl --no-block reboot' };
    }
    // QEMU has not made its socket yet.
    if (process.exitCode !== null) throw new Error('The machine did not start.');
    await sleep(20);
  }
}

async function isOpen(socket: Duplex): Promise<boolean> {
  return once(socket, 'connect').then(
    () => true,
    () => false,
  );
}
