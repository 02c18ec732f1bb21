/**
 * Disk images that boot, for tests. The small ones are a boot sector that speaks and uses its disk
 * by the BIOS, up in a second even where the CPU is emulated; the large one is a Linux on ext4,
 * started by GRUB from a BIOS and from UEFI alike. Debian packages only, no root.
 */
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const MIB = 1 << 20;
const SECTOR_BYTES = 512;
const SCRIPTS = fileURLToPath(new URL('../../scripts/', import.meta.url));

/** What a boot sector does, step by step; at the end it halts. */
export type SectorStep =
  | { readonly say: string }
  /** Writes this byte to all of sector 1 and reads it back; says `disk error` if that fails. */
  | { readonly writeSectorOne: number }
  /** Reads as many sectors, each a MiB further, with a clock tick (55 ms) between. */
  | { readonly readSectors: number }
  | 'powerOff'
  | 'reset';

/** A disk image of a boot sector that does `steps`. */
export async function makeSectorImage(
  file: string,
  steps: readonly SectorStep[],
  sizeBytes = 64 * MIB,
): Promise<void> {
  await writeFile(`${file}.s`, sectorSource(steps));
  await run('as', '--32', '-o', `${file}.o`, `${file}.s`);
  await run(
    'ld',
    '-m',
    'elf_i386',
    '-Ttext',
    '0x7c00',
    '--oformat',
    'binary',
    '-o',
    file,
    `${file}.o`,
  );
  await Promise.all([rm(`${file}.s`), rm(`${file}.o`)]);
  await truncate(file, sizeBytes);
}

/**
 * For the GNU assembler. It speaks by INT 10h, since what it wrote to the port itself would get
 * between what the BIOS has yet to send. INT 13h is as in Phoenix's "Enhanced Disk Drive", the
 * ports are those of Q35.
 */
function sectorSource(steps: readonly SectorStep[]): string {
  return `
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    cld
    mov %dl, drive
${steps.map(stepSource).join('\n')}
halt:
    hlt
    jmp halt
error:
    mov $error_text, %si
    call say
    jmp halt
say:
    lodsb
    test %al, %al
    jz said
    mov $0x0e, %ah
    mov $7, %bx
    int $0x10
    jmp say
said:
    ret
transfer:
    mov $packet, %si
    mov drive, %dl
    int $0x13
    jc error
    ret
error_text: .asciz "disk error\\r\\n"
drive: .byte 0
    .align 4
packet: .byte 16, 0, 1, 0
    .word 0x8000, 0
sector: .long 1, 0
    .org 510
    .word 0xaa55
`;
}

function stepSource(step: SectorStep, at: number): string {
  if (step === 'powerOff') return '    mov $0x604, %dx\n    mov $0x2000, %ax\n    out %ax, %dx';
  if (step === 'reset') return '    mov $0xcf9, %dx\n    mov $0x06, %al\n    out %al, %dx';
  if ('say' in step) {
    const text = JSON.stringify(step.say).slice(1, -1);
    return `    mov $text${at}, %si
    call say
    jmp next${at}
text${at}: .asciz "${text}"
next${at}:`;
  }
  if ('readSectors' in step) {
    return `    mov $${step.readSectors}, %bp
loop${at}:
    addl $${MIB / SECTOR_BYTES}, sector
    mov $0x42, %ah
    call transfer
    hlt
    dec %bp
    jnz loop${at}`;
  }
  const fill = (byte: number) =>
    `    mov $0x8000, %di\n    mov $512, %cx\n    mov $${byte}, %al\n    rep stosb`;
  return `${fill(step.writeSectorOne)}
    movl $1, sector
    mov $0x4300, %ax
    call transfer
${fill(0)}
    mov $0x42, %ah
    call transfer
    mov $0x8000, %di
    mov $512, %cx
    mov $${step.writeSectorOne}, %al
    repe scasb
    jne error`;
}

/** The text that the Linux image says when it has written to its disk and read it back. */
export const LINUX_MARKER = 'the small system is up';
const FIRST_PARTITION_MIB = 1;
const BOOT_MIB = 24;
const ROOT_MIB = 16;

/**
 * A Linux on `/dev/vda`: a FAT partition with kernel, initramfs and GRUB for UEFI, GRUB for a BIOS
 * before it, and an ext4 root that it writes to. It uses `folder` for the parts.
 */
export async function makeLinuxImage(file: string, folder: string): Promise<void> {
  const { stdout } = await run(join(SCRIPTS, 'vm/kernel'));
  const kernel = stdout.trim();
  await makeInitramfs(kernel, folder);
  const boot = join(folder, 'boot.img');
  await makeBootPartition(boot, kernel, folder);
  const root = join(folder, 'root.img');
  await mkdir(join(folder, 'empty'));
  await truncate(await made(root), ROOT_MIB * MIB);
  await run('mke2fs', '-q', '-t', 'ext4', '-d', join(folder, 'empty'), root);
  await truncate(await made(file), (FIRST_PARTITION_MIB + BOOT_MIB + ROOT_MIB) * MIB);
  const second = FIRST_PARTITION_MIB + BOOT_MIB;
  const table = `start=${FIRST_PARTITION_MIB}MiB, size=${BOOT_MIB}MiB, type=ef, bootable
start=${second}MiB, type=83
`;
  await writeFile(join(folder, 'table'), table);
  await run('sh', '-c', 'sfdisk -q "$0" <"$1"', file, join(folder, 'table'));
  await putInto(file, boot, FIRST_PARTITION_MIB * MIB);
  await putInto(file, root, second * MIB);
  await installBiosGrub(file, folder);
}

/** The kernel's modules for the disk and ext4, and an init that uses them. */
async function makeInitramfs(kernel: string, folder: string): Promise<void> {
  const tree = join(folder, 'initramfs');
  for (const name of ['bin', 'dev', 'modules', 'proc', 'root']) {
    await mkdir(join(tree, name), { recursive: true });
  }
  const busybox = (await run('sh', '-c', 'command -v busybox')).stdout.trim();
  await cp(busybox, join(tree, 'bin/busybox'));
  const release = (await readFile(join(kernel, 'release'), 'utf8')).trim();
  const wanted = ['virtio_pci', 'virtio_blk', 'ext4'];
  // Not this machine's own configuration: its options would stand behind the paths.
  const dry = ['-C', '/dev/null', '-d', join(kernel, 'root'), '-S', release];
  dry.push('--show-depends', '-a', ...wanted);
  const { stdout } = await run('modprobe', ...dry);
  const paths = [...stdout.matchAll(/^insmod (\S+)/gm)].map((match) => match[1] ?? '');
  const modules = [...new Set(paths)];
  for (const path of modules) {
    const to = join(tree, 'modules', basename(path, '.xz'));
    await run('sh', '-c', 'xz -dcf "$0" >"$1"', path, to);
  }
  const names = modules.map((path) => `/modules/${basename(path, '.xz')}`);
  await writeFile(join(tree, 'init'), initScript(names));
  await chmod(join(tree, 'init'), 0o755);
  const pack = 'cd "$0" && find . | cpio --quiet -o -H newc | gzip -1 >"$1"';
  await run('sh', '-c', `set -e; ${pack}`, tree, join(folder, 'initrd'));
}

function initScript(modules: readonly string[]): string {
  return `#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t devtmpfs none /dev
$busybox mount -t proc none /proc
for module in ${modules.join(' ')}; do $busybox insmod $module; done
$busybox mount -t ext4 /dev/vda2 /root && echo written >/root/file &&
  $busybox umount /root && $busybox mount -t ext4 /dev/vda2 /root &&
  $busybox grep -q written /root/file && echo '${LINUX_MARKER}'
while $busybox sleep 1; do :; done
`;
}

const GRUB_MENU = (root: string) => `
serial --unit=0 --speed=115200
terminal_output serial
set root=${root}
linux /vmlinuz console=ttyS0 quiet tsc=reliable no_timer_check nokaslr mitigations=off
initrd /initrd
boot
`;
const GRUB_MODULES = ['part_msdos', 'fat', 'linux', 'serial', 'terminal', 'boot', 'normal'];

async function makeBootPartition(file: string, kernel: string, folder: string): Promise<void> {
  const efi = join(folder, 'BOOTX64.EFI');
  await writeFile(join(folder, 'efi.cfg'), GRUB_MENU('hd0,msdos1'));
  await grubImage('x86_64-efi', efi, join(folder, 'efi.cfg'));
  await truncate(await made(file), BOOT_MIB * MIB);
  // Large clusters: a BIOS that is emulated pays for every request.
  await run('mformat', '-i', file, '-c', '64', '-v', 'BOOT', '::');
  await run('mmd', '-i', file, '::/EFI', '::/EFI/BOOT');
  await run('mcopy', '-i', file, efi, '::/EFI/BOOT/BOOTX64.EFI');
  await run('mcopy', '-i', file, join(kernel, 'vmlinuz'), join(folder, 'initrd'), '::/');
}

/** GRUB's first sector loads the rest from the sectors after it, by its own default. */
async function installBiosGrub(file: string, folder: string): Promise<void> {
  const core = join(folder, 'core.img');
  await writeFile(join(folder, 'bios.cfg'), GRUB_MENU('hd0,msdos1'));
  await grubImage('i386-pc', core, join(folder, 'bios.cfg'), 'biosdisk');
  await putInto(file, core, SECTOR_BYTES);
  const first = await readFile('/usr/lib/grub/i386-pc/boot.img');
  const disk = await open(file, 'r+');
  // What follows in the sector is the partition table.
  await disk.write(first, 0, 440, 0);
  await disk.close();
}

function grubImage(format: string, file: string, menu: string, ...modules: readonly string[]) {
  const args = ['-O', format, '-o', file, '-c', menu, '-p', '/boot/grub'];
  return run('grub-mkimage', ...args, ...GRUB_MODULES, ...modules);
}

async function made(file: string): Promise<string> {
  await writeFile(file, '');
  return file;
}

function putInto(file: string, part: string, offsetBytes: number): Promise<unknown> {
  const flags = ['conv=notrunc,sparse', 'oflag=seek_bytes', `seek=${offsetBytes}`, 'status=none'];
  return run('dd', `if=${part}`, `of=${file}`, 'bs=64k', ...flags);
}

function run(program: string, ...args: readonly string[]) {
  const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
  const options = { env: { ...process.env, PATH: path, LC_ALL: 'C' }, maxBuffer: MIB };
  return promisify(execFile)(program, [...args], options);
}
