/**
 * The kernel's own iSCSI target (LIO), set up by configfs: a foreign implementation beside tgt. Only
 * in the VM, since its objects are the whole machine's.
 */
import { mkdir, readdir, rmdir, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './attached.js';

const CONFIG = '/sys/kernel/config/target';
const MODULES = ['target_core_mod', 'target_core_file', 'iscsi_target_mod', 'crc32c_generic'];

export type LioOptions = {
  readonly file: string;
  readonly sizeBytes: number;
  readonly iqn: string;
  /** `address:port`, each of 127.0.0.1. */
  readonly portals: readonly string[];
  /** RFC 7143 keys by their names. */
  readonly keys?: Readonly<Record<string, string>>;
  readonly chap?: {
    readonly user: string;
    readonly password: string;
    readonly targetUser: string;
    readonly targetPassword: string;
  };
};

export interface Lio {
  readonly group: string;
  /** Lets initiators in or drops them all. */
  enable(on: boolean): Promise<void>;
  removePortal(portal: string): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** LUN 0 is the file. */
export async function startLio(options: LioOptions): Promise<Lio> {
  for (const module of MODULES) await run('modprobe', module);
  const isMounted = await readdir(CONFIG).catch(() => null);
  if (isMounted === null) await run('mount', '-t', 'configfs', 'configfs', '/sys/kernel/config');
  const name = options.iqn.replace(/[^a-z0-9]/g, '-');
  const host = join(CONFIG, 'core/fileio_0');
  const store = join(host, name);
  await mkdir(host).catch(() => undefined);
  await mkdir(store);
  await writeFile(
    join(store, 'control'),
    `fd_dev_name=${options.file},fd_dev_size=${options.sizeBytes}`,
  );
  await writeFile(join(store, 'enable'), '1');
  await mkdir(join(CONFIG, 'iscsi')).catch(() => undefined);
  const target = join(CONFIG, 'iscsi', options.iqn);
  const group = join(target, 'tpgt_1');
  await mkdir(target);
  await mkdir(group);
  const lun = join(group, 'lun/lun_0');
  await mkdir(lun);
  await symlink(store, join(lun, 'store'));
  const set = (path: string, value: string) => writeFile(join(group, path), value);
  await set('attrib/generate_node_acls', '1');
  await set('attrib/demo_mode_write_protect', '0');
  await set('attrib/authentication', options.chap === undefined ? '0' : '1');
  if (options.chap !== undefined) {
    await set('auth/userid', options.chap.user);
    await set('auth/password', options.chap.password);
    await set('auth/userid_mutual', options.chap.targetUser);
    await set('auth/password_mutual', options.chap.targetPassword);
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
      await unlink(join(lun, 'store'));
      await rmdir(lun);
      await rmdir(group);
      await rmdir(target);
      await rmdir(store);
    },
  };
}
