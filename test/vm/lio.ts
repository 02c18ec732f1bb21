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
  /** `address:port` of this machine; those of the first target portal group. */
  readonly portals: readonly string[];
  /** Of a second portal group; each LUN then has a target port group (ALUA) for each of both. */
  readonly otherPortals?: readonly string[];
  /** The LUNs are those of the other target: the same logical units. */
  readonly unitsOf?: Lio;
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
  /** Its logical units in configfs. */
  readonly stores: readonly string[];
  /** Lets initiators in or drops them all. */
  enable(on: boolean): Promise<void>;
  /**
   * Makes the LUNs' target port group of a portal group (1 or 2) change its state; `seconds` long it
   * is in transition. Only with two of them.
   */
  access(group: number, state: LioAccess, seconds?: number): Promise<void>;
  removePortal(portal: string): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Values of `alua_access_state` in configfs (SPC-4, asymmetric access state). */
const ACCESS_STATES = { optimized: 0, nonOptimized: 1, standby: 2, unavailable: 3 } as const;
export type LioAccess = keyof typeof ACCESS_STATES;
/** REPORT TARGET PORT GROUPS only: the initiator does not choose the states. */
const IMPLICIT = '1';

export async function startLio(options: LioOptions): Promise<Lio> {
  const { file = '', sizeBytes = 0, otherPortals } = options;
  const luns = options.luns ?? [{ file, sizeBytes }];
  const modules = luns.some((lun) => lun.isBlockDevice) ? ['target_core_iblock'] : [];
  for (const module of [...MODULES, ...modules]) await run('modprobe', module);
  const isMounted = await readdir(CONFIG).catch(() => null);
  if (isMounted === null) await run('mount', '-t', 'configfs', 'configfs', '/sys/kernel/config');
  await mkdir(join(CONFIG, 'iscsi')).catch(() => undefined);
  const target = join(CONFIG, 'iscsi', options.iqn);
  await mkdir(target);
  const stores: string[] = [...(options.unitsOf?.stores ?? [])];
  for (const [number, lun] of options.unitsOf === undefined ? luns.entries() : []) {
    stores.push(await makeStore(`${options.iqn.replace(/[^a-z0-9]/g, '-')}-${number}`, lun));
  }
  const groups = [new PortalGroup(target, 1)];
  if (otherPortals !== undefined) groups.push(new PortalGroup(target, 2));
  for (const group of groups) {
    await group.make(options, stores, group.tag === 1 ? options.portals : (otherPortals ?? []));
    if (groups.length > 1) await group.makePortGroups();
  }
  return {
    group: groups[0]?.place ?? '',
    stores,
    enable: async (on) => {
      for (const group of groups) await group.set('enable', on ? '1' : '0');
    },
    access: async (tag, state, seconds = 0) => {
      await groups[tag - 1]?.access(state, seconds);
    },
    removePortal: async (portal) => {
      for (const group of groups) await group.removePortal(portal);
    },
    [Symbol.asyncDispose]: async () => {
      for (const group of groups) await group.remove();
      await rmdir(target);
      for (const store of options.unitsOf === undefined ? stores : []) await rmdir(store);
    },
  };
}

/** `tpgt_N`: portals, and the LUNs behind them. */
class PortalGroup {
  readonly tag: number;
  readonly place: string;
  readonly #luns: { readonly place: string; readonly store: string }[] = [];
  readonly #portals = new Set<string>();
  readonly #portGroups: string[] = [];

  constructor(target: string, tag: number) {
    this.tag = tag;
    this.place = join(target, `tpgt_${tag}`);
  }

  set(path: string, value: string): Promise<void> {
    return writeFile(join(this.place, path), value);
  }

  async make(
    { chap, keys = {} }: LioOptions,
    stores: readonly string[],
    portals: readonly string[],
  ): Promise<void> {
    await mkdir(this.place);
    for (const [number, store] of stores.entries()) {
      const place = join(this.place, `lun/lun_${number}`);
      await mkdir(place);
      await symlink(store, join(place, 'store'));
      this.#luns.push({ place, store });
    }
    await this.set('attrib/generate_node_acls', '1');
    await this.set('attrib/demo_mode_write_protect', '0');
    await this.set('attrib/authentication', chap === undefined ? '0' : '1');
    if (chap !== undefined) {
      await this.set('auth/userid', chap.user);
      await this.set('auth/password', chap.password);
      const { targetUser, targetPassword } = chap;
      if (targetUser !== undefined) await this.set('auth/userid_mutual', targetUser);
      if (targetPassword !== undefined) await this.set('auth/password_mutual', targetPassword);
    }
    for (const [key, value] of Object.entries(keys)) await this.set(`param/${key}`, value);
    for (const portal of portals) {
      await mkdir(join(this.place, 'np', portal));
      this.#portals.add(portal);
    }
    await this.set('enable', '1');
  }

  async makePortGroups(): Promise<void> {
    for (const { place, store } of this.#luns) {
      const name = `group${this.tag}`;
      const portGroup = join(store, 'alua', name);
      await mkdir(portGroup);
      await writeFile(join(portGroup, 'tg_pt_gp_id'), String(this.tag));
      await writeFile(join(portGroup, 'alua_access_type'), IMPLICIT);
      // By default LIO makes each command to a non-optimized group wait.
      await writeFile(join(portGroup, 'nonop_delay_msecs'), '0');
      await writeFile(join(place, 'alua_tg_pt_gp'), name);
      this.#portGroups.push(portGroup);
    }
  }

  async access(state: LioAccess, seconds: number): Promise<void> {
    await Promise.all(
      this.#portGroups.map(async (place) => {
        await writeFile(join(place, 'trans_delay_msecs'), String(seconds * 1000));
        await writeFile(join(place, 'alua_access_state'), String(ACCESS_STATES[state]));
      }),
    );
  }

  async removePortal(portal: string): Promise<void> {
    if (this.#portals.delete(portal)) await rmdir(join(this.place, 'np', portal));
  }

  async remove(): Promise<void> {
    await this.set('enable', '0').catch(() => undefined);
    for (const portal of [...this.#portals]) await this.removePortal(portal);
    for (const { place } of this.#luns) {
      await unlink(join(place, 'store'));
      await rmdir(place);
    }
    for (const portGroup of this.#portGroups) await rmdir(portGroup);
    await rmdir(this.place);
  }
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
