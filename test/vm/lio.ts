/**
 * The kernel's own iSCSI target (LIO), set up by configfs: a foreign implementation beside tgt. Only
 * in the VM, since its objects are the whole machine's.
 */
import { mkdir, readdir, readFile, rmdir, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './attached.js';

const CONFIG = '/sys/kernel/config/target';
const TRACE = '/sys/kernel/tracing';
const EVENT = join(TRACE, 'events/target/target_sequencer_start/enable');
const MODULES = ['target_core_mod', 'target_core_file', 'iscsi_target_mod', 'crc32c_generic'];

export type LioLun = {
  /** Behind a file its size is fixed; behind a block device it is the device's, as it is. */
  readonly file: string;
  readonly isBlockDevice?: boolean;
  /** Of a file. */
  readonly sizeBytes?: number;
  /** Writes to a file end in the system's page cache, and WCE is 1; by default it is 0. */
  readonly isBuffered?: boolean;
  /** Of `attrib/` in configfs. */
  readonly attributes?: Readonly<Record<string, number>>;
};

export type LioOptions = {
  /** LUN 0 is this file, unless there are `luns`. */
  readonly file?: string;
  readonly sizeBytes?: number;
  readonly luns?: readonly LioLun[];
  readonly iqn: string;
  /** `address:port`, each of 127.0.0.1. */
  readonly portals: readonly string[];
  /** RFC 7143 keys by their names. */
  readonly keys?: Readonly<Record<string, string>>;
  readonly chap?: {
    readonly user: string;
    readonly password: string;
    /** What the target proves itself with, for mutual CHAP. */
    readonly targetUser?: string;
    readonly targetPassword?: string;
  };
};

export interface Lio {
  readonly group: string;
  /** Lets initiators in or drops them all. */
  enable(on: boolean): Promise<void>;
  removePortal(portal: string): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startLio(options: LioOptions): Promise<Lio> {
  const { file = '', sizeBytes = 0 } = options;
  const luns = options.luns ?? [{ file, sizeBytes }];
  const modules = luns.some((lun) => lun.isBlockDevice) ? ['target_core_iblock'] : [];
  for (const module of [...MODULES, ...modules]) await run('modprobe', module);
  const isMounted = await readdir(CONFIG).catch(() => null);
  if (isMounted === null) await run('mount', '-t', 'configfs', 'configfs', '/sys/kernel/config');
  await mkdir(join(CONFIG, 'iscsi')).catch(() => undefined);
  const target = join(CONFIG, 'iscsi', options.iqn);
  const group = join(target, 'tpgt_1');
  await mkdir(target);
  await mkdir(group);
  const made: { readonly store: string; readonly lun: string }[] = [];
  for (const [number, lun] of luns.entries()) {
    const store = await makeStore(`${options.iqn.replace(/[^a-z0-9]/g, '-')}-${number}`, lun);
    const place = join(group, `lun/lun_${number}`);
    await mkdir(place);
    await symlink(store, join(place, 'store'));
    made.push({ store, lun: place });
  }
  const set = (path: string, value: string) => writeFile(join(group, path), value);
  await set('attrib/generate_node_acls', '1');
  await set('attrib/demo_mode_write_protect', '0');
  await set('attrib/authentication', options.chap === undefined ? '0' : '1');
  if (options.chap !== undefined) {
    await set('auth/userid', options.chap.user);
    await set('auth/password', options.chap.password);
    const { targetUser, targetPassword } = options.chap;
    if (targetUser !== undefined) await set('auth/userid_mutual', targetUser);
    if (targetPassword !== undefined) await set('auth/password_mutual', targetPassword);
  }
  for (const [key, value] of Object.entries(options.keys ?? {})) await set(`param/${key}`, value);
  const portals = new Set(options.portals);
  for (const portal of portals) await mkdir(join(group, 'np', portal));
  await set('enable', '1');
  const removePortal = async (portal: string) => {
    if (portals.delete(portal)) await rmdir(join(group, 'np', portal));
  };
  return {
    group,
    enable: (on) => set('enable', on ? '1' : '0'),
    removePortal,
    [Symbol.asyncDispose]: async () => {
      await set('enable', '0').catch(() => undefined);
      for (const portal of [...portals]) await removePortal(portal);
      for (const { lun } of made) {
        await unlink(join(lun, 'store'));
        await rmdir(lun);
      }
      await rmdir(group);
      await rmdir(target);
      for (const { store } of made) await rmdir(store);
    },
  };
}

/** A backstore; its folder in configfs. */
async function makeStore(name: string, lun: LioLun): Promise<string> {
  const host = join(CONFIG, lun.isBlockDevice ? 'core/iblock_0' : 'core/fileio_0');
  const store = join(host, name);
  await mkdir(host).catch(() => undefined);
  await mkdir(store);
  const what = lun.isBlockDevice
    ? `udev_path=${lun.file}`
    : `fd_dev_name=${lun.file},fd_dev_size=${lun.sizeBytes}`;
  const how = lun.isBuffered ? ',fd_buffered_io=1' : '';
  await writeFile(join(store, 'control'), what + how);
  await writeFile(join(store, 'enable'), '1');
  // Without a serial number it lists none of its VPD pages.
  await writeFile(join(store, 'wwn/vpd_unit_serial'), name);
  for (const [attribute, value] of Object.entries(lun.attributes ?? {})) {
    await writeFile(join(store, 'attrib', attribute), String(value));
  }
  return store;
}

/** A command as the kernel's target got it. */
export type SeenCommand = { readonly lun: number; readonly cdb: Buffer };

/** The commands that LIO gets while `work` goes on, from the kernel's trace of them. */
export async function commandsDuring(work: () => Promise<unknown>): Promise<SeenCommand[]> {
  const isMounted = await readFile(EVENT).catch(() => null);
  if (isMounted === null) await run('mount', '-t', 'tracefs', 'tracefs', TRACE);
  await writeFile(join(TRACE, 'trace'), '');
  await writeFile(EVENT, '1');
  await work();
  await writeFile(EVENT, '0');
  const trace = await readFile(join(TRACE, 'trace'), 'utf8');
  const lines = trace.matchAll(/-> LUN (\d+) tag .* CDB ((?:[0-9a-f]{2} )+)/g);
  return [...lines].map(([, lun = '', cdb = '']) => ({
    lun: Number(lun),
    cdb: Buffer.from(cdb.replaceAll(' ', ''), 'hex'),
  }));
}
