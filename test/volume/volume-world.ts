/**
 * A host, a daemon and records of volumes in memory. Each call is a step; the process that makes the
 * calls can be killed after any of them, and the world stays as it is for the next process.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Mount } from '../../src/io/mount-info.js';
import { iscsiNamesEqual } from '../../src/iscsi/login/target-name.js';
import type { DeviceView, VolumeDaemon, VolumeLogin } from '../../src/volume/volume-daemon.js';
import { VolumeError } from '../../src/volume/volume-error.js';
import type { PathKind, ProgramEnd, VolumeHost } from '../../src/volume/volume-host.js';
import type { VolumeRecord, VolumeRecords } from '../../src/volume/volume-record.js';
import { VolumeSecretFiles } from '../../src/volume/volume-secrets.js';
import { parseVolumeSpec, type VolumeSpec } from '../../src/volume/volume-spec.js';
import { Volumes } from '../../src/volume/volumes.js';

export const TARGET = 'iqn.2001-04.com.example:disk1';
const MIB = 1 << 20;

export class Killed extends Error {}

export type WorldDisk = {
  /** What blkid says; '' for nothing. */
  type: string;
  hasData: boolean;
  sizeBytes: number;
  serial: string;
  readOnly: boolean;
  lunState: DeviceView['lunState'];
};

type WorldSession = { readonly sessionId: string; persistent: boolean; readonly target: string };

export class VolumeWorld {
  /** Disks by target and LUN. */
  readonly disks = new Map<string, WorldDisk>();
  readonly sessions: WorldSession[] = [];
  readonly logins: VolumeLogin[] = [];
  readonly folders = new Set<string>();
  readonly files = new Set<string>();
  readonly programs: string[] = [];
  readonly warnings: string[] = [];
  mountTable: Mount[] = [];
  stored = new Map<string, string>();
  bootId = 'boot-1';
  steps = 0;
  /** The process dies after this step. */
  killAt = Number.POSITIVE_INFINITY;
  /** A program that fails, and how. */
  failing: Record<string, ProgramEnd> = {};
  /** What a call waits for, to be caught in the middle. */
  pause: Promise<void> | null = null;
  isDaemonUp = true;
  /** Folders that something else is mounted over: a bind mount shows that. */
  readonly hidden = new Set<string>();
  readonly secretsFolder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-secrets-'));
  #sessionCount = 0;
  #devices = new Map<string, string>();
  #dead = { is: false };

  addDisk(lun: number, disk: Partial<WorldDisk> = {}, target = TARGET): WorldDisk {
    const made: WorldDisk = {
      ...{ type: '', hasData: false, sizeBytes: 64 * MIB, serial: `serial-${lun}` },
      ...{ readOnly: false, lunState: 'serving' as const },
      ...disk,
    };
    this.disks.set(`${target}/${lun}`, made);
    return made;
  }

  /** A new process with what the one before left. */
  start(): Promise<Volumes> {
    this.#dead = { is: false };
    this.steps = 0;
    this.killAt = Number.POSITIVE_INFINITY;
    return Volumes.open({
      host: this.#host(),
      daemon: this.#daemon(),
      records: this.#records(),
      secrets: new VolumeSecretFiles(this.secretsFolder),
      waits: { diskMsMax: 50, pollMs: 1 },
      bootId: this.bootId,
      warn: (message) => this.warnings.push(message),
    });
  }

  reboot(): void {
    this.mountTable = [];
    this.sessions.splice(0, this.sessions.length, ...this.sessions.filter((s) => s.persistent));
    this.#devices.clear();
    this.bootId = `${this.bootId}+`;
  }

  record(volumeId: string): VolumeRecord | null {
    const text = this.stored.get(volumeId);
    return text === undefined ? null : (JSON.parse(text) as VolumeRecord);
  }

  get phases(): string[] {
    return [...this.stored.keys()].map((id) => this.record(id)?.phase ?? '');
  }

  /** All that a volume leaves somewhere. */
  leftovers(): unknown {
    return {
      mounts: this.mountTable.map(({ path }) => path),
      sessions: this.sessions.map(({ target }) => target),
      secrets: readdirSync(this.secretsFolder),
      targets: [...this.folders, ...this.files].filter((path) => path.startsWith('/pods/')),
      staged: this.phases.filter((phase) => phase !== 'known'),
    };
  }

  dispose(): void {
    rmSync(this.secretsFolder, { recursive: true, force: true });
  }

  deviceOf(lun: number, target = TARGET): string {
    return this.#devices.get(`${target}/${lun}`) ?? 'none';
  }

  async #step<T>(dead: { is: boolean }, effect: () => T): Promise<T> {
    await Promise.resolve();
    if (dead.is) throw new Killed('the process is dead');
    if (this.pause !== null) await this.pause;
    this.steps += 1;
    const result = effect();
    if (this.steps >= this.killAt) {
      dead.is = true;
      throw new Killed('the process was killed');
    }
    return result;
  }

  #diskAt(device: string): WorldDisk {
    const key = [...this.#devices].find(([, name]) => name === device)?.[0] ?? '';
    const disk = this.disks.get(key);
    if (disk === undefined) throw new VolumeError('failed', `${device} is not there`);
    return disk;
  }

  #host(): VolumeHost {
    const dead = this.#dead;
    const step = <T>(effect: () => T) => this.#step(dead, effect);
    const numberOf = (path: string) => {
      const bound = this.mountTable.find((mount) => mount.path === path && mount.root !== '/');
      const device = bound === undefined ? path : `/dev${bound.root}`;
      const isThere = [...this.#devices.values()].includes(device);
      return isThere ? `43:${device.slice('/dev/nbd'.length)}` : null;
    };
    return {
      run: (program, args) => step(() => this.#run(program, args, numberOf)),
      mounts: () => step(() => [...this.mountTable]),
      resolvePath: (path) => step(() => path),
      kindOf: (path) =>
        step((): PathKind => {
          if (numberOf(path) !== null) return 'block';
          if (this.folders.has(path)) return 'folder';
          return this.files.has(path) ? 'file' : 'none';
        }),
      deviceNumberOf: (path) => step(() => numberOf(path)),
      sizeOf: (device) => step(() => this.#diskAt(device).sizeBytes),
      read: (device, _offset, length) =>
        step(() => Buffer.alloc(length, this.#diskAt(device).hasData ? 1 : 0)),
      isFree: (device) => step(() => !this.mountTable.some(({ source }) => source === device)),
      makeFolder: (path) => step(() => void this.folders.add(path)),
      makeFile: (path) => step(() => void this.files.add(path)),
      removeFolder: (path) => step(() => void this.folders.delete(path)),
      removeFile: (path) => step(() => void this.files.delete(path)),
      statistics: (path) =>
        step(() => {
          if (!this.mountTable.some((mount) => mount.path === path)) throw new Error('no mount');
          return {
            ...{ totalBytes: 60 * MIB, availableBytes: 50 * MIB, usedBytes: 10 * MIB },
            ...{ totalInodes: 1000, availableInodes: 900 },
          };
        }),
    };
  }

  #run(
    program: string,
    args: readonly string[],
    numberOf: (path: string) => string | null,
  ): ProgramEnd {
    this.programs.push([program, ...args].join(' '));
    const failure = this.failing[program];
    if (failure !== undefined) return failure;
    const done = { status: 0, stdout: '', stderr: '' };
    const last = args.at(-1) ?? '';
    if (program === 'blkid') {
      const { type } = this.#diskAt(last);
      if (type === '') return { ...done, status: 2 };
      return { ...done, stdout: `DEVNAME=${last}\nTYPE=${type}\nUSAGE=filesystem\n` };
    }
    if (program.startsWith('mkfs.')) {
      const disk = this.#diskAt(last);
      if (disk.type !== '' || disk.hasData) throw new Error(`${last} with data is formatted`);
      Object.assign(disk, { type: program.slice('mkfs.'.length), hasData: true });
      return done;
    }
    if (program === 'mount') return this.#mount(args, numberOf);
    if (program === 'umount') {
      const at = this.mountTable.map(({ path }) => path).lastIndexOf(last);
      if (at < 0) return { ...done, status: 32, stderr: 'not mounted' };
      this.mountTable.splice(at, 1);
      return done;
    }
    return done;
  }

  #mount(args: readonly string[], numberOf: (path: string) => string | null): ProgramEnd {
    const done = { status: 0, stdout: '', stderr: '' };
    const [from = '', path = ''] = args.slice(-2);
    const flags = args[args.indexOf('-o') + 1] ?? '';
    if (flags.includes('remount')) {
      const at = this.mountTable.findLast((mount) => mount.path === path);
      if (at === undefined) return { ...done, status: 32, stderr: 'not mounted' };
      this.mountTable = this.mountTable.map((each) =>
        each === at ? { ...at, options: ['ro'] } : each,
      );
      return done;
    }
    const source = this.mountTable.findLast((mount) => mount.path === from);
    if (this.hidden.has(from)) {
      const root = { device: '0:44', root: from, options: ['rw'], type: 'tmpfs', source: 'tmpfs' };
      this.mountTable.push({ ...root, path });
      return done;
    }
    if (args[0] !== '--bind') {
      const device = numberOf(from) ?? '';
      const options = flags.split(',').includes('ro') ? ['ro'] : ['rw'];
      this.mountTable.push({ device, root: '/', path, options, type: args[1] ?? '', source: from });
    } else if (source !== undefined) {
      this.mountTable.push({ ...source, path, options: ['rw'] });
    } else {
      const root = from.replace('/dev', '');
      const [device, type] = ['0:5', 'devtmpfs'];
      this.mountTable.push({ device, root, path, options: ['rw'], type, source: 'udev' });
    }
    return done;
  }

  #daemon(): VolumeDaemon {
    const dead = this.#dead;
    const step = <T>(effect: () => T) =>
      this.#step(dead, () => {
        if (!this.isDaemonUp) throw new VolumeError('unavailable', 'No daemon listens.');
        return effect();
      });
    const sessionTo = (name: string) => {
      return this.sessions.find(({ target }) => iscsiNamesEqual(target, name)) ?? null;
    };
    return {
      sessionTo: (name) => step(() => sessionTo(name)),
      login: (login) => step(() => this.#login(login, sessionTo(login.targetName))),
      devicesOf: (id) => step(() => this.#views(id)),
      rescan: () => step(() => undefined),
      logout: (id) => step(() => this.#logout(id)),
    };
  }

  #login(login: VolumeLogin, existing: WorldSession | null): string {
    this.logins.push(login);
    if (existing !== null) return existing.sessionId;
    this.#sessionCount += 1;
    const sessionId = String(this.#sessionCount).padStart(16, '0');
    this.sessions.push({ sessionId, persistent: false, target: login.targetName });
    return sessionId;
  }

  #views(sessionId: string): DeviceView[] {
    const session = this.sessions.find((each) => each.sessionId === sessionId);
    const ours = [...this.disks].filter(([key]) => key.startsWith(`${session?.target}/`));
    return ours.map(([key, disk]) => {
      const lun = Number(key.slice(key.lastIndexOf('/') + 1));
      const isThere = disk.lunState !== 'removed';
      if (isThere && !this.#devices.has(key)) this.#devices.set(key, this.#freeDevice());
      return {
        ...{ UniqueSessionId: sessionId, TargetiSCSIName: session?.target ?? '', lun },
        device: isThere ? (this.#devices.get(key) ?? null) : null,
        ...{ lunState: disk.lunState, removalInSeconds: null, lastError: null },
        ...{ retainedBytes: 0, retainedAgeSeconds: 0, replays: 0, socket: null, uri: null },
        ...{ sizeBytes: disk.sizeBytes, blockSizeBytes: 512, readOnly: disk.readOnly },
        identity: {
          ...{ vendor: 'IET', product: 'DISK', serial: disk.serial, identifiers: [] },
          ...{ deviceType: 0, unread: [] },
        },
        ...{ state: 'loggedIn' as const, heldRequests: 0, heldBytes: 0 },
      };
    });
  }

  #freeDevice(): string {
    const used = new Set(this.#devices.values());
    for (let index = 0; ; index += 1) {
      if (!used.has(`/dev/nbd${index}`)) return `/dev/nbd${index}`;
    }
  }

  #logout(sessionId: string): 'loggedOut' | 'inUse' {
    const at = this.sessions.findIndex((each) => each.sessionId === sessionId);
    const { target } = this.sessions[at] ?? { target: '' };
    const keys = [...this.#devices.keys()].filter((key) => key.startsWith(`${target}/`));
    const names = keys.map((key) => this.#devices.get(key) ?? '');
    const isUsed = this.mountTable.some(
      ({ source, root }) => names.includes(source) || names.includes(`/dev${root}`),
    );
    if (isUsed) return 'inUse';
    if (at >= 0) this.sessions.splice(at, 1);
    for (const key of keys) this.#devices.delete(key);
    return 'loggedOut';
  }

  #records(): VolumeRecords {
    const dead = this.#dead;
    const step = <T>(effect: () => T) => this.#step(dead, effect);
    const record = (id: string) => this.record(id);
    return {
      all: () =>
        step(() => {
          const found = [...this.stored.keys()].map(record).filter((each) => each !== null);
          return { records: found, broken: [] };
        }),
      find: (id) => step(() => record(id)),
      save: (each) => step(() => void this.stored.set(each.volumeId, JSON.stringify(each))),
      remove: (id) => step(() => void this.stored.delete(id)),
      placeOf: (id) => `/records/${id}.json`,
    };
  }
}

export function specOf(lun: number, more: Partial<VolumeSpec> = {}): VolumeSpec {
  return parseVolumeSpec({
    ...{ targetName: TARGET, lun, portals: ['192.0.2.1'], fsType: 'ext4', fsck: 'auto' },
    ...{ mountOptions: [], readOnly: false, diskId: null, options: {} },
    ...more,
  });
}
