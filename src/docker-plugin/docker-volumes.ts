import { createHash } from 'node:crypto';
import { join } from 'node:path';
import * as z from 'zod';
import { SerialQueue } from '../base/serial-queue.js';
import type { OpenVolumes } from '../volume/open-volumes.js';
import { RecordFolder } from '../volume/record-folder.js';
import { VolumeError } from '../volume/volume-error.js';
import { volumeSpecSchema } from '../volume/volume-spec.js';
import type { Volumes } from '../volume/volumes.js';
import { readDockerOptions } from './docker-options.js';

const VOLUMES_MAX = 1024;
const USERS_MAX = 1024;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

const recordSchema = z.strictObject({
  version: z.literal(1),
  name: z.string(),
  spec: volumeSpecSchema,
  createdAt: z.iso.datetime(),
  /** The boot that `users` are of: containers end with the machine. */
  bootId: z.string(),
  /** IDs, given by Docker, of the containers that have mounted it. */
  users: z.array(z.string()).max(USERS_MAX),
});

type DockerRecord = z.output<typeof recordSchema>;

export type DockerVolume = {
  readonly Name: string;
  readonly Mountpoint: string;
  readonly CreatedAt: string;
  readonly Status: Readonly<Record<string, string>>;
};

/** Volumes by the names that Docker and Podman have for them. */
export class DockerVolumes {
  readonly #volumes: Volumes;
  readonly #records: RecordFolder<DockerRecord>;
  readonly #mounts: string;
  readonly #bootId: string;
  /** Containers that start and end at the same time wait for each other. */
  readonly #queue = new SerialQueue();
  readonly #now: () => Date;

  constructor(options: OpenVolumes & { readonly now: () => Date }) {
    this.#volumes = options.volumes;
    this.#records = new RecordFolder({
      folder: join(options.folder, 'names'),
      schema: recordSchema,
      keyOf: ({ name }) => name,
    });
    this.#mounts = join(options.folder, 'mounts');
    this.#bootId = options.bootId;
    this.#now = options.now;
  }

  /** Only writes down what the volume is: its disk is examined when it is mounted. */
  create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    return this.#queue.run(async () => {
      if (!NAME.test(name)) {
        throw new VolumeError('invalid', `A volume cannot be called ${JSON.stringify(name)}.`);
      }
      const spec = readDockerOptions(options);
      const { records } = await this.#records.all();
      const known = records.find((record) => record.name === name);
      if (known !== undefined) {
        // Podman and Compose create volumes that exist already.
        if (JSON.stringify(known.spec) === JSON.stringify(spec)) return;
        const words = `The volume ${name} is there with other options`;
        throw new VolumeError('exists', `${words}; remove it first.`);
      }
      if (records.length >= VOLUMES_MAX) {
        throw new VolumeError('refused', `There are ${VOLUMES_MAX} volumes already.`);
      }
      const [createdAt, bootId] = [this.#now().toISOString(), this.#bootId];
      await this.#records.save({ version: 1, name, spec, createdAt, bootId, users: [] });
    });
  }

  /** Forgets the volume; its data stay on its disk. */
  remove(name: string): Promise<void> {
    return this.#queue.run(async () => {
      const record = await this.#known(name);
      const [user] = this.#usersOf(record);
      if (user !== undefined) {
        throw new VolumeError('refused', `The volume ${name} is used by ${user.slice(0, 12)}.`);
      }
      await this.#volumes.unstage(name, null);
      await this.#volumes.forget(name);
      await this.#records.remove(name);
    });
  }

  /** The folder that the container gets. */
  mount(name: string, user: string): Promise<string> {
    return this.#queue.run(async () => {
      const record = await this.#known(name);
      const stagingPath = this.#mountpointOf(record);
      const { spec } = record;
      const users = [...new Set([...this.#usersOf(record), user])];
      if (users.length > USERS_MAX) {
        const words = `The volume ${name} has ${USERS_MAX} containers, which is the most.`;
        throw new VolumeError('refused', `${words} Remove one, or restart the machine.`);
      }
      await this.#volumes.stage({ volumeId: name, spec, secrets: {}, stagingPath });
      await this.#records.save({ ...record, bootId: this.#bootId, users });
      return stagingPath;
    });
  }

  /** The last container of a volume ends its session. */
  unmount(name: string, user: string): Promise<void> {
    return this.#queue.run(async () => {
      const record = await this.#known(name);
      const users = this.#usersOf(record).filter((other) => other !== user);
      if (users.length === 0) await this.#volumes.unstage(name, this.#mountpointOf(record));
      await this.#records.save({ ...record, bootId: this.#bootId, users });
    });
  }

  async find(name: string): Promise<DockerVolume> {
    return await this.#view(await this.#known(name));
  }

  async list(): Promise<DockerVolume[]> {
    const { records } = await this.#records.all();
    return Promise.all(records.map((record) => this.#view(record)));
  }

  async #view(record: DockerRecord): Promise<DockerVolume> {
    const { name, spec, createdAt } = record;
    const isMounted = this.#usersOf(record).length > 0;
    const mountpoint = this.#mountpointOf(record);
    const words = isMounted
      ? await this.#volumes.report(name, mountpoint).then(
          ({ condition }) => condition.message,
          (error: Error) => error.message,
        )
      : 'It is not mounted.';
    return {
      Name: name,
      Mountpoint: isMounted ? mountpoint : '',
      CreatedAt: createdAt,
      Status: { target: spec.targetName, lun: String(spec.lun), condition: words },
    };
  }

  async #known(name: string): Promise<DockerRecord> {
    const record = await this.#records.find(name);
    if (record !== null) return record;
    throw new VolumeError('notFound', `There is no volume ${JSON.stringify(name.slice(0, 255))}.`);
  }

  #usersOf({ users, bootId }: DockerRecord): readonly string[] {
    return bootId === this.#bootId ? users : [];
  }

  #mountpointOf({ name }: DockerRecord): string {
    const digest = createHash('sha256').update(name).digest('hex').slice(0, 24);
    return join(this.#mounts, digest);
  }
}
